//! What a machine says of itself: `distro`, `version`, `arch`, `cpus`, `memory` (MiB), `kernel`, `hostname`, `boot-id`.

use super::spec::Facts;

/// Limits on what a machine may say of itself.
const MAX_FACTS: usize = 32;
const MAX_VALUE: usize = 256;

/// Prints `KEY=VALUE` lines; needs nothing but bash, and uname if it is there.
pub(super) const SCRIPT: &str = r#"(
  ID='' VERSION_ID=''
  [[ -r /etc/os-release ]] && . /etc/os-release
  printf 'distro=%s\nversion=%s\n' "$ID${VERSION_ID:+-$VERSION_ID}" "$VERSION_ID"
) 2>/dev/null
{
  printf 'arch=%s\nkernel=%s\n' "$(uname -m)" "$(uname -r)"
  n=0
  while IFS= read -r line; do [[ $line == processor* ]] && (( ++n )); done </proc/cpuinfo
  got=$(nproc) && n=$got
  (( n > 0 )) && printf 'cpus=%s\n' "$n"
  while read -r key value rest; do
    [[ $key == MemTotal: ]] && { printf 'memory=%s\n' "$(( value / 1024 ))"; break; }
  done </proc/meminfo
  read -r name </proc/sys/kernel/hostname && printf 'hostname=%s\n' "$name"
  read -r boot </proc/sys/kernel/random/boot_id && printf 'boot-id=%s\n' "$boot"
  true
} 2>/dev/null"#;

/// Lines that make sense, cut to size.
pub(super) fn parse(output: &[u8]) -> Facts {
    let text = String::from_utf8_lossy(output);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let clean = |value: &str| value.chars().filter(|c| !c.is_control()).take(MAX_VALUE).collect::<String>();
    pairs
        .filter(|(key, value)| !value.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
        .take(MAX_FACTS)
        .map(|(key, value)| (key.to_owned(), clean(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_box_has_facts() {
        let output = std::process::Command::new("bash").args(["-c", SCRIPT]).output().unwrap();
        let facts = parse(&output.stdout);
        for key in ["arch", "cpus", "memory", "kernel", "hostname"] {
            assert!(facts.contains_key(key), "{key} of {facts:?}");
        }
    }

    #[test]
    fn nonsense_is_left_out() {
        let facts = parse(b"distro=fedora-40\x1b[1m\nno line\nBAD KEY=1\nempty=\n\xff=\xff\ncpus=2");
        let shown: Vec<_> = facts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["cpus=2", "distro=fedora-40[1m"]);
        assert_eq!(parse("a=1\n".repeat(5000).as_bytes()).len(), 1);
    }
}
