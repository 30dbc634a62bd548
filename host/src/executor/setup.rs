//! What makes a machine ready for the tests of a platform: the tree, uploads, prepare phases, copies for slots.

use super::session::{Error, Interrupt, Result, Session, Tail};
use super::spec::{Site, Upload};
use super::{phases, upload};
use crate::transport::quote;

/// Everything, on a fresh machine.
pub(crate) fn run(session: &mut Session, site: &Site, interrupt: Interrupt<'_>) -> Result<()> {
    send_tree(session, site, interrupt)?;
    for upload in &site.uploads {
        send_upload(session, upload, interrupt)?;
    }
    phases::run(session, site, &site.prepare, interrupt)?;
    start_slots(session, site, interrupt)
}

/// After a reboot: what is still there stays as the tests left it.
pub(crate) fn again(session: &mut Session, site: &Site, interrupt: Interrupt<'_>) -> Result<()> {
    if session.place.fresh {
        session.introduce(interrupt)?;
        send_tree(session, site, interrupt)?;
    }
    start_slots(session, site, interrupt)
}

fn send_tree(session: &mut Session, site: &Site, interrupt: Interrupt<'_>) -> Result<()> {
    let root = session.place.tree(0);
    for layer in &site.layers {
        let mut directory = root.clone();
        if !layer.to.is_empty() {
            directory = format!("{root}/{}", layer.to);
            command(session, &format!("mkdir -p -- {}", quote(&directory)), interrupt)
                .map_err(|e| in_step("upload of the tree", e))?;
        }
        let words = ["tar", "-xopf", "-", "-C", &directory];
        session
            .stream(&words, interrupt, &mut |pipe| upload::send(&layer.from, pipe))
            .map_err(|e| in_step("upload of the tree", e))?;
    }
    Ok(())
}

/// A directory's contents go into `to`; a file becomes `to`.
fn send_upload(session: &mut Session, upload: &Upload, interrupt: Interrupt<'_>) -> Result<()> {
    let name = || format!("upload of {}", upload.from.display());
    let is_directory = upload.from.is_dir();
    let directory = if is_directory { upload.to.as_str() } else { parent(&upload.to) };
    command(session, &format!("mkdir -p -- {}", quote(directory)), interrupt)
        .map_err(|e| in_step(&name(), e))?;
    let words = ["tar", "-xopf", "-", "-C", directory];
    session
        .stream(&words, interrupt, &mut |pipe| upload::send_as(&upload.from, file_name(&upload.to), pipe))
        .map_err(|e| in_step(&name(), e))
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Each further slot has a copy of the tree as the prepare phases left it, and a driver.
fn start_slots(session: &mut Session, site: &Site, interrupt: Interrupt<'_>) -> Result<()> {
    for slot in 1..site.slots.max(1) {
        session.start_driver(slot, None, interrupt)?;
        if session.place.fresh {
            let code =
                format!("cp -a {}/. {}/", quote(&session.place.tree(0)), quote(&session.place.tree(slot)));
            command(session, &code, interrupt).map_err(|e| in_step("copy of the tree", e))?;
        }
    }
    Ok(())
}

fn command(session: &mut Session, code: &str, interrupt: Interrupt<'_>) -> Result<()> {
    let mut tail = Tail::new(2000);
    let end = session.command(0, code, None, &mut tail, interrupt)?;
    if end.status == 0 {
        Ok(())
    } else {
        Err(Error::Failed(format!("exit status {}{}", end.status, tail.shown())))
    }
}

fn in_step(step: &str, error: Error) -> Error {
    match error {
        Error::Failed(why) => Error::Failed(format!("{step}: {why}")),
        other => other,
    }
}
