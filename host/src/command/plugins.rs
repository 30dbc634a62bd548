//! `plugins list`, `plugins check` and `plugins new`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::cli::plugins::{self as print, ApiCrate};
use crate::cli::{Format, NewPluginAt};
use crate::config::{ExitStatus, Libraries, Secrets};
use crate::plugin::{self, Gravity};
use crate::store::StateDir;

use super::open::{self, LIMIT};
use super::{Error, Terminal};

/// Where an installed host has the crate that plugins are built against, seen from the directory of the program.
const INSTALLED_CRATE: &str = "../share/atex-host/atex-plugin-api.crate";
/// Where a host that was just built has it.
const SOURCE_CRATE: &str = "../../plugin-api";
/// Where the installed one is unpacked to, in the new plugin's directory.
const UNPACKED: &str = "atex-plugin-api";

pub(super) fn list(libraries: &Libraries, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let state = StateDir::from_environment().map_err(Error::State)?;
    let registry = open::registry(libraries, false, &state, &Secrets::default())?;
    let asked = registry.clone();
    let all = open::within(LIMIT, "plugins".to_owned(), move || asked.everything())?;
    for warning in registry.warnings() {
        tracing::warn!("{warning}");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    match terminal.output().format {
        Format::Human => print::list_text(&mut out, &all),
        Format::Json => print::list_json(&mut out, &all),
    }
    .and_then(|()| out.flush())
    .map_err(Error::Output)?;
    Ok(ExitStatus::Passed)
}

pub(super) fn check(file: &Path, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let state = tempfile::tempdir().map_err(Error::State)?;
    let (path, directory) = (file.to_owned(), state.path().to_owned());
    let findings = open::within(LIMIT, format!("plugin library {}", file.display()), move || {
        plugin::check(&path, &directory)
    })?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match terminal.output().format {
        Format::Human => print::check_text(&mut out, &findings),
        Format::Json => print::check_json(&mut out, &findings),
    }
    .and_then(|()| out.flush())
    .map_err(Error::Output)?;
    let bad = findings.iter().any(|finding| finding.gravity == Gravity::Bad);
    Ok(if bad { ExitStatus::Failed } else { ExitStatus::Passed })
}

/// Makes the directory of a new plugin.
pub(super) fn new(wanted: &NewPluginAt) -> Result<ExitStatus, Error> {
    let directory = &wanted.directory;
    let cannot = |error: io::Error| Error::NewPlugin { directory: directory.clone(), error };
    fs::create_dir(directory).map_err(cannot)?;
    fs::create_dir(directory.join("src")).map_err(cannot)?;
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).map_err(cannot)?;
    let api = api_crate(program.parent().unwrap_or(Path::new("/")), directory).map_err(cannot)?;
    for (name, text) in print::skeleton(&wanted.name, wanted.kind, &api) {
        fs::write(directory.join(name), text).map_err(cannot)?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "made {0}; next: cd {0} && cargo test", directory.display()).map_err(Error::Output)?;
    Ok(ExitStatus::Passed)
}

/// The crate of this very host, if it is at hand: an installed one is copied into the new plugin.
fn api_crate(program_directory: &Path, plugin: &Path) -> io::Result<ApiCrate> {
    let installed = program_directory.join(INSTALLED_CRATE);
    if installed.is_file() {
        unpack(&installed, &plugin.join(UNPACKED))?;
        return Ok(ApiCrate::Directory(PathBuf::from(UNPACKED)));
    }
    let source = program_directory.join(SOURCE_CRATE);
    if source.join("src/abi.rs").is_file() {
        return Ok(ApiCrate::Directory(source.canonicalize()?));
    }
    Ok(ApiCrate::Version(env!("CARGO_PKG_VERSION").to_owned()))
}

/// Unpacks a packaged crate, without the directory that all of it lies in.
fn unpack(package: &Path, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(package)?));
    let staging = tempfile::tempdir_in(target.parent().unwrap_or(Path::new(".")))?;
    archive.unpack(staging.path())?;
    let mut roots = fs::read_dir(staging.path())?;
    let root = roots.next().ok_or_else(|| io::Error::other("the packaged atex-plugin-api is empty"))??;
    fs::rename(root.path(), target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_crate_is_copied_into_the_plugin() {
        let prefix = tempfile::tempdir().unwrap();
        let (bin, share, plugin) =
            (prefix.path().join("bin"), prefix.path().join("share/atex-host"), prefix.path().join("mine"));
        for directory in [&bin, &share, &plugin] {
            fs::create_dir_all(directory).unwrap();
        }
        assert_eq!(
            api_crate(&bin, &plugin).unwrap(),
            ApiCrate::Version(env!("CARGO_PKG_VERSION").to_owned())
        );
        let package = fs::File::create(share.join("atex-plugin-api.crate")).unwrap();
        let mut archive =
            tar::Builder::new(flate2::write::GzEncoder::new(package, flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        archive.append_data(&mut header, "atex-plugin-api-0.1.0/Cargo.toml", &b"x\n"[..]).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        assert_eq!(api_crate(&bin, &plugin).unwrap(), ApiCrate::Directory(PathBuf::from("atex-plugin-api")));
        assert_eq!(fs::read_to_string(plugin.join("atex-plugin-api/Cargo.toml")).unwrap(), "x\n");
    }

    #[test]
    fn a_crate_beside_the_build_is_used_where_it_is() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("target/debug");
        fs::create_dir_all(&program).unwrap();
        fs::create_dir_all(root.path().join("plugin-api/src")).unwrap();
        fs::write(root.path().join("plugin-api/src/abi.rs"), "").unwrap();
        let expected = root.path().join("plugin-api").canonicalize().unwrap();
        assert_eq!(api_crate(&program, root.path()).unwrap(), ApiCrate::Directory(expected));
    }
}
