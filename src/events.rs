//! A run as lines of JSON, one for each event, for programs; docs/runner.md lists them.

use std::sync::Once;

use engine::{
    instance::{InstanceId, Pipeline},
    observer::{Event, Observer},
    publish::Change,
    run::Summary,
};
use serde_json::{Value, json};

use crate::ui;

/// Prints what another one watches.
pub(crate) struct Events<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) watch: &'a mut dyn Observer,
}

impl Observer for Events<'_> {
    fn event(&mut self, event: &Event) {
        print(&object(self.pipeline, event));
        self.watch.event(event);
    }
}

/// A run goes on without its lines.
fn print(object: &Value) {
    static SAID: Once = Once::new();
    if let Err(error) = ui::write(&format!("{object}\n")) {
        SAID.call_once(|| ui::note(&format!("warning: cannot write what happens, and go on: {error}")));
    }
}

/// The last line.
pub(crate) fn ended(summary: &Summary, seconds: f64) {
    let Summary { fresh, ran, restored, taken, failed, stopped, skipped, interrupted, .. } = summary;
    print(&json!({
        "event": "ended", "seconds": seconds, "exit_code": summary.exit_code(), "interrupted": interrupted,
        "fresh": fresh.len(), "ran": ran.len(), "restored": restored.len(), "taken": taken.len(),
        "failed": failed.len(), "stopped": stopped.len(), "not_reached": skipped.len(),
    }));
}

fn object(pipeline: &Pipeline, event: &Event) -> Value {
    let name = |id: &InstanceId| &pipeline.instances[*id].name;
    let plain = |event: &str, id: &InstanceId| json!({ "event": event, "instance": name(id) });
    match event {
        Event::Started { id } => plain("started", id),
        Event::Progress { id, progress } => json!({
            "event": "progress", "instance": name(id), "done": progress.done, "total": progress.total,
            "unit": progress.unit, "readings": progress.readings,
        }),
        Event::Said { id, line } => json!({ "event": "said", "instance": name(id), "line": line }),
        Event::Warned { id, line } => json!({ "event": "warned", "instance": name(id), "line": line }),
        Event::Finished { id, seconds } => {
            json!({ "event": "finished", "instance": name(id), "seconds": seconds })
        }
        Event::Restored { id } => plain("restored", id),
        Event::Brought { id } => plain("brought", id),
        Event::Taken { id } => plain("taken", id),
        Event::Fresh { id } => plain("fresh", id),
        Event::Failed { id, message, hint } => json!({
            "event": "failed", "instance": name(id), "message": message, "hint": hint,
        }),
        Event::Stopped { id } => plain("stopped", id),
        Event::Published { id, path, change } => json!({
            "event": if *change == Change::Wrote { "wrote" } else { "removed" }, "instance": name(id),
            "file": path.display().to_string(),
        }),
    }
}
