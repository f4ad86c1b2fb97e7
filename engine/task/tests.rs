use std::os::fd::OwnedFd;

use super::*;

#[test]
fn a_process_that_cannot_be_listened_to_is_ended_and_waited_for() {
    let mut child = crate::process::spawn(Command::new("sleep").arg("60").process_group(0), &[]).unwrap();
    // What a folder says cannot be read.
    child.stdout = Some(OwnedFd::from(fs::File::open("/").unwrap()).into());
    let (group, (sender, _receiver)) = (ProcessGroup::of(&child), std::sync::mpsc::sync_channel(1));
    let errors = (PathBuf::new(), 0);
    let run = Ran { gpus: vec![], launcher: None, errors, together: 1, by_shell: true, ends_with: None };
    let listened = listen(&mut child, &group, &run, &mut [], &sender, |_| {});
    assert_eq!(listened.unwrap_err().kind(), io::ErrorKind::IsADirectory);
    assert_eq!(child.try_wait().unwrap().and_then(|status| status.signal()), Some(9));
}
