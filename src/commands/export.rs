//! `repro export`: a trained network as files for other programs.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use engine::plan::Standing;
use network::{checkpoint::Checkpoint, export::onnx::onnx};

use crate::{
    args::{Export, Global},
    error::{Failure, FailureKind},
    ui,
};

pub(super) fn export(global: &Global, args: &Export) -> Result<ExitCode, Failure> {
    let wanted = [&args.full, &args.onnx];
    for path in wanted.into_iter().flatten() {
        if !args.force && fs::symlink_metadata(path).is_ok() {
            let message = format!("`{}` is there already", path.display());
            return Err(Failure {
                hint: Some("choose another name, or replace it with `--force`".into()),
                ..Failure::new(FailureKind::User, message)
            });
        }
    }
    let checkpoint = checkpoint(global, &args.instance)?;
    if let Some(path) = &args.full {
        save(path, &checkpoint.state_dict().map_err(refused)?)?;
    }
    if let Some(path) = &args.onnx {
        let weights = checkpoint.weights().map_err(refused)?;
        let model = onnx(&checkpoint.model.graph(), &weights, &checkpoint.metadata()).map_err(refused)?;
        save(path, &model)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the one instance called `name` has trained.
fn checkpoint(global: &Global, name: &str) -> Result<Checkpoint, Failure> {
    let (pipeline, project) = super::project(global)?;
    let user = |message: String, hint: String| Failure {
        hint: Some(hint),
        ..Failure::new(FailureKind::User, message)
    };
    let [id] = super::selected(pipeline, &[name.to_owned()])?[..] else {
        let hint = "name one; `repro status` lists them".to_owned();
        return Err(user(format!("`{name}` means several instances"), hint));
    };
    let name = &pipeline.instances[id].name;
    if pipeline.instances[id].kind.name() != "train" {
        let hint = "name an instance of kind `train`".to_owned();
        return Err(user(format!("`{name}` trains no network"), hint));
    }
    if project.status(pipeline)?[id] != Standing::Fresh {
        return Err(user(format!("`{name}` is not up to date"), format!("run `repro run '{name}'` first")));
    }
    let path = project.result(pipeline, id).join("checkpoint.safetensors");
    let bytes = fs::read(&path)
        .map_err(|e| Failure::new(FailureKind::User, format!("cannot read `{}`: {e}", ui::path(&path))))?;
    Checkpoint::from_bytes(&bytes).map_err(refused)
}

/// A checkpoint that is not what it was; wishes that no file can fulfil are the user's.
fn refused(error: network::Error) -> Failure {
    let kind = match error {
        network::Error::Malformed(_) => FailureKind::Integrity,
        _ => FailureKind::User,
    };
    Failure::new(kind, error.to_string())
}

/// Writes a file, whole or not at all.
fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let draft = path.with_added_extension("draft");
    let written = write(&draft, bytes).and_then(|()| fs::rename(&draft, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&draft); // it may not even be there
        Failure::new(FailureKind::User, format!("cannot write `{}`: {e}", path.display()))
    })?;
    ui::line(&format!("wrote {} ({} bytes)", path.display(), bytes.len()));
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}
