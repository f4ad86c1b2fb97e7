//! How the report looks, light and dark.

/// The page's style sheet.
pub(super) const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1e1e1e; --quiet: #5b6168; --line: #d0d4d9; --ground: #ffffff; --box: #f3f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --quiet: #a0a6ad; --line: #434a52; --ground: #16191d; --box: #22272d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 66rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
.quiet, figcaption .quiet { color: var(--quiet); }
.wide { overflow-x: auto; margin: 0.5rem 0 1rem; }
table { border-collapse: collapse; font-size: 0.875rem; }
th, td { text-align: left; vertical-align: top; padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th { white-space: nowrap; }
.claims td { overflow-wrap: anywhere; } .claims td:nth-child(1) { overflow-wrap: normal; }
.claims td:nth-child(2) { min-width: 15rem; } .claims td:nth-child(3) { min-width: 8rem; }
.claims td:nth-child(4) { min-width: 18rem; }
figure { margin: 1rem 0 2rem; }
figure img { width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
figcaption { margin-top: 0.4rem; }
summary { cursor: pointer; padding: 0.25rem 0; }
pre { background: var(--box); padding: 0.75rem; overflow-x: auto; font-size: 0.8125rem; border-radius: 4px; }
.graph rect { fill: var(--box); stroke: var(--quiet); } .graph path { fill: none; stroke: var(--quiet); }
.graph text { fill: var(--ink); font-size: 14px; } .graph text.quiet { fill: var(--quiet); font-size: 12px; }
";
