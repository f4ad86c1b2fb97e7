//! Pieces of HTML. Everything that comes from elsewhere is escaped here. Knows no report.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};

/// `text` as HTML shows it.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// A table whose first row is the heading; a line break in a cell stays one.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::from("<div class=\"wide\"><table>\n");
    for (index, row) in rows.iter().enumerate() {
        let tag = if index == 0 { "th" } else { "td" };
        text.push_str("<tr>");
        for cell in row {
            let _ = write!(text, "<{tag}>{}</{tag}>", escape(cell).replace('\n', "<br>"));
        }
        text.push_str("</tr>\n");
    }
    text + "</table></div>\n"
}

/// `content`, folded away under `summary`.
pub(super) fn details(summary: &str, content: &str) -> String {
    format!("<details>\n<summary>{}</summary>\n{content}</details>\n", escape(summary))
}

/// A file as an image within the page: nothing in it can run or clash with the page.
pub(super) fn image(media: &str, bytes: &[u8], title: &str) -> String {
    format!("<img alt=\"{}\" src=\"data:{media};base64,{}\">\n", escape(title), STANDARD.encode(bytes))
}
