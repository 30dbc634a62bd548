//! Which requests this box has made, by mark: for a service that does not tell tags in its list, and for calls that are
//! repeated. A file per request; losing them costs nothing as long as the service tells tags.

use std::path::{Path, PathBuf};

use atex_plugin_api::Result;

use crate::request::is_id;

/// The directory with a file for each request, whose contents are the mark.
#[derive(Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    /// In the plugin's own state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("requests"))
    }

    /// Notes a request.
    pub(crate) fn add(&self, id: &str, mark: &str) -> Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let draft = self.0.join(format!(".{id}"));
        std::fs::write(&draft, mark)?;
        Ok(std::fs::rename(draft, self.0.join(id))?)
    }

    /// Forgets one, if it is there.
    pub(crate) fn remove(&self, id: &str) {
        // What stays is asked for once more, and found to be over.
        let _ = std::fs::remove_file(self.0.join(id));
    }

    /// All ids with their marks.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let read = entries.filter_map(|entry| {
            let id = entry.file_name().into_string().ok().filter(|id| is_id(id))?;
            Some((id, std::fs::read_to_string(entry.path()).ok()?))
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_found_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::new(directory.path());
        assert!(records.all().is_empty());
        records.add("0123-4567-89ab", "me/r/a").unwrap();
        std::fs::write(directory.path().join("requests/.0123-4567-89ac"), "half").unwrap();
        assert_eq!(Records::new(directory.path()).all(), [("0123-4567-89ab".into(), "me/r/a".into())]);
        records.remove("0123-4567-89ab");
        records.remove("0123-4567-89ab");
        assert!(records.all().is_empty());
    }
}
