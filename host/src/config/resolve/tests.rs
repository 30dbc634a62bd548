//! Whole configurations and command lines, and the plans or the error lines they make.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::super::plan::{PlanChoice, Platform, PoolChoice, Upload};
use super::*;

/// A tree on disk with a configuration, and a place from which it is used.
struct Fixture {
    directory: tempfile::TempDir,
    options: RunOptions,
    variables: BTreeMap<String, String>,
}

impl Fixture {
    /// With `yaml` as the file that `--config` names.
    fn named(yaml: &str) -> Self {
        let mut fixture = Self::of_tree(yaml);
        fixture.options.tree.config = Some("tree/atex.yaml".into());
        fixture
    }

    /// With `yaml` as the file that the tree brings along.
    fn of_tree(yaml: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join(".fmf")).unwrap();
        std::fs::write(tree.join("atex.yaml"), yaml).unwrap();
        let mut options = RunOptions::default();
        options.tree.tree = Some("tree".into());
        Self { directory, options, variables: BTreeMap::new() }
    }

    fn with(mut self, change: impl FnOnce(&mut RunOptions)) -> Self {
        change(&mut self.options);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    fn around(&self) -> Surroundings {
        Surroundings {
            directory: self.directory.path().to_owned(),
            variables: self.variables.clone(),
            owner: "me@box".into(),
            seed: 7,
        }
    }

    fn plan(&self) -> RunPlan {
        plan(&self.options, &self.around()).unwrap()
    }

    /// The error line, without the temporary directory.
    fn error(&self) -> String {
        let line = plan(&self.options, &self.around()).unwrap_err().to_string();
        line.replace(&format!("{}/tree/", self.directory.path().display()), "")
            .replace(&format!("{}/", self.directory.path().display()), "")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }
}

fn specs(texts: &[&str]) -> Vec<Spec> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn assignments(texts: &[&str]) -> Vec<Assignment> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn names(plan: &RunPlan) -> Vec<(&str, &PoolChoice)> {
    plan.platforms.iter().map(|platform| (platform.name.as_str(), &platform.pools)).collect()
}

fn listed(pools: &[usize]) -> PoolChoice {
    PoolChoice::Listed(pools.to_vec())
}

const FULL: &str = "
dialect: atex
owner: nightly@lab
plugins: [./libacme_provisioner.so]
plan: /plans/daily
env: {CONTENT: /root/content, COUNT: 3, FLAG: true, NOTHING: }
uploads: [{from: ../content/build, to: /root/content}]
adjust: [{test: /long/.*, duration: 8h}]
provisioners:
  lab: {use: ssh, hosts: [a, b], max: 20}
  spare: {use: podman}
platforms:
  - name: rhel-9@x86_64
    context: {distro: rhel-9.6, arch: x86_64}
    require: {distro: rhel-9}
    provisioners: [lab, {use: acme, flavor: large, max: 4, host: {slots: 8, isolate: true, reserve-timeout: 10m}}]
  - context: {distro: [fedora-42, fedora], arch: aarch64}
    plan: [/plans/a, /plans/b]
    env: {CONTENT: /elsewhere}
    policies: [shuffle]
policies:
  - {use: reruns, max: 2, unless-exit: [0, 2]}
  - priority
slots: 2
spares: 1
statistics: 10m
limits: {time: 8h, grace: 5, bytes-per-test: 1MiB, max-machines: 9}
reporters:
  - {use: jsonl, compress: xz}
old-results: {use: jsonl, path: old/results.jsonl, files: old/files}
keep-artifacts: false
";

#[test]
fn a_configuration_with_everything() {
    let fixture = Fixture::named(FULL);
    let plan = fixture.plan();
    assert_eq!(
        (plan.dialect, plan.owner.as_str(), plan.spares),
        (super::super::plan::Dialect::Atex, "nightly@lab", 1)
    );
    assert_eq!(plan.libraries.files, [fixture.path("tree/libacme_provisioner.so")]);
    assert_eq!(plan.pools.iter().map(Pool::name).collect::<Vec<_>>(), ["lab", "acme", "spare"]);
    assert_eq!(names(&plan), [("rhel-9@x86_64", &listed(&[0, 1])), ("fedora-42@aarch64", &listed(&[0, 2]))]);
    assert!(!plan.keep_artifacts);
    assert_eq!(plan.statistics.map(|every| every.as_secs()), Some(600));

    let lab = &plan.pools[0];
    assert_eq!(Value::Object(lab.provisioner.expose().clone()), json!({"hosts": ["a", "b"]}));
    assert_eq!((lab.max.map(NonZeroU32::get), lab.slots.get(), lab.options.isolate), (Some(20), 2, false));
    let acme = &plan.pools[1];
    assert_eq!((acme.slots.get(), acme.options.isolate), (8, true));
    assert_eq!(acme.options.reserve_timeout, Duration::from_mins(10));
    assert_eq!(acme.provisioner.base, fixture.path("tree"));

    let [rhel, fedora] = &plan.platforms[..] else { panic!("two platforms") };
    assert_eq!(rhel.plans, PlanChoice::Matching(vec!["/plans/daily".into()]));
    assert_eq!(fedora.plans, PlanChoice::Matching(vec!["/plans/a".into(), "/plans/b".into()]));
    assert_eq!(rhel.require["distro"], "rhel-9");
    assert_eq!(fedora.context["distro"], ["fedora-42", "fedora"]);
    let env = |platform: &Platform| -> Vec<String> {
        platform.environment.iter().map(|(key, text)| format!("{key}={}", text.expose())).collect()
    };
    assert_eq!(env(rhel), ["CONTENT=/root/content", "COUNT=3", "FLAG=true", "NOTHING="]);
    assert_eq!(env(fedora)[0], "CONTENT=/elsewhere");
    assert_eq!(
        rhel.uploads,
        [Upload { from: fixture.path("tree/../content/build"), to: "/root/content".into() }]
    );
    assert_eq!(rhel.adjust[0].test.as_deref(), Some("/long/.*"));
    assert_eq!(Value::Object(rhel.adjust[0].keys.clone()), json!({"duration": "8h"}));

    let chain = |platform: &Platform| -> Vec<String> {
        plan.policies[platform.policies].iter().map(|policy| policy.plugin.clone()).collect()
    };
    assert_eq!(
        (chain(rhel), chain(fedora)),
        (vec!["reruns".into(), "priority".into()], vec!["shuffle".into()])
    );
    let reruns = &plan.policies[rhel.policies][0];
    assert_eq!(reruns.expose()["max"], 2, "`max` of a policy is its own");

    assert_eq!(plan.limits.time, Duration::from_hours(8));
    assert_eq!(plan.limits.grace, Duration::from_secs(5));
    assert_eq!((plan.limits.bytes_per_test, plan.limits.release), (1 << 20, Duration::from_mins(5)));
    assert_eq!(plan.limits.max_machines.map(NonZeroU32::get), Some(9));
    assert_eq!(plan.reporters[0].plugin.expose()["compress"], "xz");
    assert_eq!(plan.old_results.unwrap().plugin.expose()["files"], "old/files");
}

#[test]
fn without_configuration_everything_has_its_default() {
    let fixture = Fixture::of_tree("");
    let plan = fixture.plan();
    assert_eq!(names(&plan), [("default", &PoolChoice::Unspecified)]);
    assert_eq!(plan.without_pool().map(|platform| platform.name.as_str()), Some("default"));
    assert_eq!(plan.platforms[0].plans, PlanChoice::Only);
    let policies: Vec<_> = plan.policies[0].iter().map(|policy| policy.plugin.as_str()).collect();
    assert_eq!(policies, ["destructive", "priority", "duration"]);
    assert_eq!(plan.reporters.iter().map(|it| it.plugin.plugin.as_str()).collect::<Vec<_>>(), ["jsonl"]);
    assert_eq!((plan.limits, plan.seed, plan.owner.as_str()), (Limits::default(), 7, "me@box"));
    assert_eq!(plan.run_directory, RunDirectory::Fresh { below: fixture.path("").components().collect() });
}

#[test]
fn the_command_line_wins() {
    let fixture = Fixture::named(FULL)
        .with(|options| {
            options.provisioner = specs(&["local,max=4", "local"]);
            options.reporter = specs(&["yaml"]);
            options.slots = NonZeroU16::new(3);
            options.reruns = Some(5);
            options.spares = Some(0);
            options.fail_fast = true;
            options.seed = Some(99);
            options.plugins.plugin = vec!["libmine.so".into()];
            options.tree.context = assignments(&["arch=s390x", "trigger=a,b"]);
            options.env = assignments(&["COUNT=4", "TOKEN=hunter2"]);
            options.tree.plan = vec!["/x".into()];
            options.tree.dialect = Some(super::super::plan::Dialect::Tmt);
            options.tree.platform = vec!["fedora-42@s390x".into()];
            options.run_dir = Some("here".into());
        })
        .variable("ATEX_PLUGIN_PATH", "/opt/plugins:plugins:");
    let plan = fixture.plan();
    assert_eq!(names(&plan), [("fedora-42@s390x", &listed(&[0, 1]))]);
    assert_eq!(plan.pools.iter().map(Pool::name).collect::<Vec<_>>(), ["local", "local-2"]);
    assert_eq!((plan.pools[0].max.map(NonZeroU32::get), plan.pools[0].slots.get()), (Some(4), 3));
    assert_eq!(
        plan.reporters.iter().map(|it| it.plugin.plugin.as_str()).collect::<Vec<_>>(),
        ["jsonl", "yaml"]
    );
    let policies: Vec<_> = plan.policies[0].iter().map(|policy| policy.plugin.as_str()).collect();
    assert_eq!(policies, ["reruns", "shuffle"]);
    assert_eq!(plan.policies[0][0].expose()["max"], 5);
    assert_eq!((plan.seed, plan.spares, plan.limits.max_fail), (99, 0, Some(NonZeroU32::MIN)));
    assert_eq!(plan.libraries.files[0], fixture.path("libmine.so"));
    assert_eq!(plan.libraries.directories, [PathBuf::from("/opt/plugins"), fixture.path("plugins")]);
    let platform = &plan.platforms[0];
    assert_eq!(platform.context["trigger"], ["a", "b"]);
    assert_eq!(platform.environment["COUNT"].expose(), "4");
    assert_eq!(platform.plans, PlanChoice::Matching(vec!["/x".into()]));
    assert_eq!(plan.run_directory, RunDirectory::At(fixture.path("here")));
    assert_eq!(plan.secrets.mask("hunter2"), "***");
}

#[test]
fn reruns_set_the_policy_of_that_name() {
    let with = |yaml: &str, n| {
        Fixture::named(yaml).with(|options| options.reruns = Some(n)).plan().policies.remove(0)
    };
    let shown = |chain: &[PluginUse]| -> Vec<String> {
        chain
            .iter()
            .map(|policy| format!("{}{}", policy.plugin, Value::Object(policy.expose().clone())))
            .collect()
    };
    let configured = "policies: [priority, {use: reruns, max: 2, on: fail}]";
    assert_eq!(shown(&with(configured, 1)), ["priority{}", r#"reruns{"max":1,"on":"fail"}"#]);
    assert_eq!(shown(&with(configured, 0)), ["priority{}"]);
    assert_eq!(shown(&with("policies: [priority]", 1)), [r#"reruns{"max":1}"#, "priority{}"]);
}

#[test]
fn pools_are_shared_by_name_and_named_once() {
    let yaml = "
provisioners: {a: {use: ssh, name: lab}, ssh: {use: podman}}
platforms:
  - {name: one, provisioners: [{use: ssh}, ssh, a]}
  - {name: two, provisioners: [ssh, a, a]}
  - {name: three}
  - {name: four, provisioners: []}
";
    let plan = Fixture::named(yaml).plan();
    assert_eq!(plan.pools.iter().map(Pool::name).collect::<Vec<_>>(), ["ssh-2", "ssh", "lab"]);
    let want = [
        ("one", &listed(&[0, 1, 2])),
        ("two", &listed(&[1, 2])),
        ("three", &listed(&[2, 1])),
        ("four", &PoolChoice::Unspecified),
    ];
    assert_eq!(names(&plan), want);
}

#[test]
fn wrong_configurations_say_where_and_what_would_be_right() {
    let table = [
        ("slotz: 1", "atex.yaml:1:1: slotz: unknown key; did you mean `slots`?"),
        ("a: 1\na: 2", "atex.yaml:2:1: the key \"a\" is given twice in one mapping"),
        ("slots: 0", "atex.yaml:1:8: slots: expected a whole number from 1, found 0"),
        ("slots: many", "atex.yaml:1:8: slots: expected a whole number from 1, found \"many\""),
        ("- a", "atex.yaml:1:1: expected a mapping, found a list"),
        ("dialect: tmtt", "atex.yaml:1:10: dialect: \"tmtt\" is not known here; did you mean `tmt`?"),
        ("owner: a/b", "atex.yaml:1:8: owner: the owner \"a/b\" may have no slash and no space in it"),
        ("limits: {tme: 1h}", "atex.yaml:1:10: limits.tme: unknown key; did you mean `time`?"),
        (
            "limits:\n  time: soon",
            "atex.yaml:2:9: limits.time: the duration \"soon\" needs a number where 's' is",
        ),
        (
            "limits: {time: -5}",
            "atex.yaml:1:16: limits.time: expected a duration such as 90s, 5m or 2h, found -5",
        ),
        (
            "limits: {bytes-per-test: 2 GiBs}",
            "atex.yaml:1:26: limits.bytes-per-test: \"2 GiBs\" is no size; examples are 4096, 512MiB, 2GiB",
        ),
        ("provisioners: {lab: {hosts: [a]}}", "atex.yaml:1:21: provisioners.lab: the key `use` is missing"),
        (
            "provisioners:\n  lab: {use: ssh, max: 0}",
            "atex.yaml:2:24: provisioners.lab.max: expected a whole number from 1, found 0",
        ),
        (
            "provisioners: {lab: {use: ssh, host: {slot: 2}}}",
            "atex.yaml:1:39: provisioners.lab.host.slot: unknown key; did you mean `slots`?",
        ),
        (
            "provisioners: {lab: {use: ../x}}",
            "atex.yaml:1:27: provisioners.lab.use: \"../x\" cannot be a plugin's name: those are of a-z, 0-9, - and _",
        ),
        (
            "provisioners: {../lab: {use: ssh}}",
            "atex.yaml:1:24: provisioners.\"../lab\": the name \"../lab\" may not begin with a dot or have a slash in it",
        ),
        (
            "provisioners: {lab: {use: ssh}}\nplatforms: [{provisioners: [lav]}]",
            "atex.yaml:2:29: platforms[0].provisioners[0]: there is no pool \"lav\" under `provisioners`; did you mean `lab`?; for the plugin of that name write `{use: lav}`",
        ),
        (
            "platforms: [{provisioners: [{use: a, name: x}, {use: b, name: x}]}]",
            "atex.yaml:1:48: platforms[0].provisioners[1]: two pools are called \"x\"",
        ),
        (
            "platforms: [{name: a}, {name: a}]",
            "atex.yaml:1:24: platforms[1]: two platforms are called \"a\"; give each a `name` of its own",
        ),
        (
            "platforms: [{name: 'a:b'}]",
            "atex.yaml:1:20: platforms[0].name: the name \"a:b\" may have no colon in it: NAME:PLAN is what platforms with several plans are called",
        ),
        (
            "platforms: [{context: {distro: {a: b}}}]",
            "atex.yaml:1:32: platforms[0].context.distro: expected text or a list of texts, found a mapping",
        ),
        ("env: {A-B: 1}", "atex.yaml:1:12: env.A-B: \"A-B\" is no name of an environment variable"),
        ("env: {A: [1]}", "atex.yaml:1:10: env.A: expected text, found a list"),
        (
            "env: {A: '${NOT_SET}'}",
            "atex.yaml:1:10: env.A: the environment variable `NOT_SET` is not set; set it, or give a default as in `${NOT_SET:-text}`",
        ),
        (
            "uploads: [{from: a, to: b}]",
            "atex.yaml:1:25: uploads[0].to: \"b\" is no absolute path on the machine",
        ),
        ("uploads: [{from: a}]", "atex.yaml:1:11: uploads[0]: the key `to` is missing"),
        (
            "adjust: [{test: a}]",
            "atex.yaml:1:10: adjust[0]: sets no key; write e.g. `duration: 8h` beside `test`",
        ),
        (
            "policies: [{use: reruns, host: {slots: 1}}]",
            "atex.yaml:1:33: policies[0].host.slots: unknown key",
        ),
        ("policies: [1]", "atex.yaml:1:12: policies[0]: expected a name or a mapping with `use`, found 1"),
        (
            "reporters: [{use: jsonl, host: {finish-timeout: x}}]",
            "atex.yaml:1:49: reporters[0].host.finish-timeout: the duration \"x\" needs a number where 'x' is",
        ),
        ("old-results: {path: x}", "atex.yaml:1:14: old-results: the key `use` is missing"),
        ("plan: [/a, '(']", "atex.yaml:1:7: plan: regular expression \"(\": a `(` without its `)`"),
        (
            "adjust: [{test: '*', tier: 1}]",
            "atex.yaml:1:17: adjust[0].test: regular expression \"*\": nothing to repeat before `*`",
        ),
        ("a: [", "atex.yaml:2:1: did not find expected node content"),
    ];
    for (yaml, want) in table {
        assert_eq!(Fixture::named(yaml).error(), want, "{yaml}");
    }
}

#[test]
fn a_pool_of_the_configuration_can_be_chosen_by_its_name() {
    let yaml = "
provisioners:
  lab: {use: ssh, hosts: [a], max: 5, host: {slots: 2, isolate: true}}
  other: {use: podman}
  ssh: {use: ssh, hosts: [b]}
platforms: [{name: one, provisioners: [other]}]
";
    let chosen = |texts: &[&str]| Fixture::named(yaml).with(|options| options.provisioner = specs(texts));
    let plan = chosen(&["lab,max=1,host={slots: 4}", "lab", "ssh", "ssh,hosts=[c]"]).plan();
    let shown: Vec<_> =
        plan.pools.iter().map(|pool| (pool.name(), pool.provisioner.plugin.as_str())).collect();
    assert_eq!(shown, [("lab", "ssh"), ("lab-2", "ssh"), ("ssh", "ssh"), ("ssh-2", "ssh")]);
    let hosts: Vec<_> = plan.pools.iter().map(|pool| pool.provisioner.expose()["hosts"][0].clone()).collect();
    assert_eq!(hosts, ["a", "a", "b", "c"]);
    let numbers: Vec<_> =
        plan.pools.iter().map(|pool| (pool.max.map(NonZeroU32::get), pool.slots.get())).collect();
    assert_eq!(numbers, [(Some(1), 4), (Some(5), 2), (None, 1), (None, 1)]);
    assert!(plan.pools[0].options.isolate);
    assert_eq!(names(&plan), [("one", &listed(&[0, 1, 2, 3]))]);
    assert_eq!(
        chosen(&["lab,hosts=[c]"]).error(),
        "--provisioner: \"lab\" is a pool of the configuration; only `max`, `name` and `host` can be given beside its name"
    );
}

#[test]
fn wrong_options_are_named() {
    type Change = fn(&mut RunOptions);
    let table: [(Change, &str); 9] = [
        (|o| o.tree.test = vec!["[".into()], "--test: regular expression \"[\": a `[` without its `]`"),
        (
            |o| o.tree.condition = vec!["a ==".into()],
            "--condition: condition \"a ==\", column 5: expected a value, found the end",
        ),
        (
            |o| o.provisioner = specs(&["local,max=x"]),
            "--provisioner: max: expected a whole number from 1, found \"x\"",
        ),
        (
            |o| o.provisioner = specs(&["Local"]),
            "--provisioner: use: \"Local\" cannot be a plugin's name: those are of a-z, 0-9, - and _",
        ),
        (|o| o.policy = specs(&["reruns,host={a: 1}"]), "--policy: host.a: unknown key"),
        (
            |o| o.tree.platform = vec!["defualt".into()],
            "--platform: there is no platform \"defualt\"; did you mean `default`?",
        ),
        (|o| o.env = assignments(&["A-B=1"]), "--env: \"A-B\" is no name of an environment variable"),
        (
            |o| o.tree.tree = Some("nowhere".into()),
            "cannot read the tree nowhere: No such file or directory (os error 2)",
        ),
        (
            |o| o.tree.config = Some("nowhere.yaml".into()),
            "nowhere.yaml: cannot read the configuration: No such file or directory (os error 2)",
        ),
    ];
    for (change, want) in table {
        assert_eq!(Fixture::of_tree("").with(change).error(), want);
    }
}

#[test]
fn the_tree_s_configuration_is_trusted_only_when_the_user_says_so() {
    let yaml = "env: {HOME_OF: '${HOME}'}\nprovisioners: {box: {use: local}}\n";
    let untrusted = Fixture::of_tree(yaml).variable("HOME", "/home/me");
    assert_eq!(
        untrusted.error(),
        "atex.yaml:1:16: env.HOME_OF: environment variables (`${...}`) are refused in a configuration that came with \
         the tree; name the file with --config, or say --trust-tree"
    );
    let trusted =
        Fixture::of_tree(yaml).variable("HOME", "/home/me").with(|options| options.tree.trust_tree = true);
    assert_eq!(trusted.plan().platforms[0].environment["HOME_OF"].expose(), "/home/me");
    let named = Fixture::named(yaml).variable("HOME", "/home/me");
    assert_eq!(named.plan().pools[0].name(), "box");
}

#[test]
fn a_plan_is_made_again_from_what_is_stored_and_nothing_secret_is() {
    let yaml = "
owner: ${WHO}
provisioners: {lab: {use: ssh, password: '${secret:PASS}', user: '${WHO}'}}
env: {API_TOKEN: '${PASS}'}
";
    let fixture = Fixture::named(yaml).variable("WHO", "root").variable("PASS", "hunter2").with(|options| {
        options.env = assignments(&["A=${B}"]);
        options.policy = specs(&["priority,key=${x}"]);
    });
    let first = fixture.plan();
    assert_eq!(first.pools[0].provisioner.expose()["password"], "hunter2");
    let stored = serde_json::to_string(&first.origin).unwrap();
    assert!(!stored.contains("hunter2"), "{stored}");
    assert!(!format!("{first:?}").contains("hunter2"));

    let origin: Origin = serde_json::from_str(&stored).unwrap();
    let mut around = fixture.around();
    around.directory = "/".into();
    around.seed = 1;
    around.variables.insert("PASS".into(), "changed".into());
    let again = plan_again(&origin, &around).unwrap();
    assert_eq!(again.pools[0].provisioner.expose()["password"], "changed");
    assert_eq!(again.platforms[0].environment["A"].expose(), "${B}");
    assert_eq!(again.policies[0][0].expose()["key"], "${x}");
    assert_eq!((again.seed, &again.tree, again.owner.as_str()), (7, &first.tree, "root"));
    assert_eq!(again.origin, first.origin);

    around.variables.remove("PASS");
    let line = plan_again(&origin, &around).unwrap_err().to_string();
    assert!(
        line.ends_with(
            "provisioners.lab.password: the environment variable `PASS` is not set; set it to the secret"
        ),
        "{line}"
    );
}

#[test]
fn secrets_that_were_written_out_are_not_stored_but_found_again_in_the_file() {
    let fixture = Fixture::named("provisioners: {lab: {use: ssh, password: hunter2}}")
        .with(|options| options.reporter = specs(&["web,key=value"]));
    let plan = fixture.plan();
    let stored = serde_json::to_string(&plan.origin).unwrap();
    assert!(!stored.contains("hunter"), "{stored}");
    assert!(!super::super::configuration_changed(&plan.origin));
    let again = plan_again(&plan.origin, &fixture.around()).unwrap();
    assert_eq!(again.pools[0].provisioner.expose()["password"], "hunter2");
    assert_eq!(again.secrets.mask("hunter2"), "***");
    assert_eq!(again.origin, plan.origin);

    std::fs::write(fixture.path("tree/atex.yaml"), "provisioners: {}").unwrap();
    assert!(super::super::configuration_changed(&plan.origin));
    let line = plan_again(&plan.origin, &fixture.around()).unwrap_err().to_string();
    assert!(
        line.contains("provisioners.lab.password: this secret was written out in the configuration"),
        "{line}"
    );
}

#[test]
fn secrets_of_the_command_line_are_not_stored() {
    let fixture = Fixture::named("").with(|options| options.reporter = specs(&["web,token=hunter3"]));
    let plan = fixture.plan();
    assert_eq!(plan.reporters[1].plugin.expose()["token"], "hunter3");
    assert!(!serde_json::to_string(&plan.origin).unwrap().contains("hunter"));
    let line = plan_again(&plan.origin, &fixture.around()).unwrap_err().to_string();
    assert!(line.starts_with("--reporter: token: this secret was written out"), "{line}");
}

#[test]
fn each_pool_is_made_again_from_its_own_record() {
    let yaml = "
env: {OTHER: '${secret:GONE}'}
provisioners:
  a: {use: ssh, key: '${secret:A}'}
  b: {use: acme, token: hunter2}
  c: {use: acme, region: '${GONE}'}
";
    let fixture = Fixture::named(yaml).variable("A", "hunter3").variable("GONE", "gone");
    let record = |pool: &Pool| (pool.provisioner.written().clone(), pool.provisioner.stored_place());
    let records: Vec<_> = fixture.plan().pools.iter().map(record).collect();
    let stored = serde_json::to_string(&records).unwrap();
    assert!(!stored.contains("hunter"), "{stored}");
    let records: Vec<(serde_json::Map<String, Value>, Option<super::super::StoredPlace>)> =
        serde_json::from_str(&stored).unwrap();
    let mut around = fixture.around();
    around.variables.remove("GONE");
    let secrets = Secrets::default();
    let again = |index: usize| {
        let (written, place) = &records[index];
        PluginUse::again("acme", "name", FilePath::new("/"), written, place.as_ref(), &around, &secrets)
    };
    assert_eq!(again(0).unwrap().expose()["key"], "hunter3");
    assert_eq!(again(1).unwrap().expose()["token"], "hunter2");
    assert!(
        again(2)
            .unwrap_err()
            .to_string()
            .starts_with("provisioners.c.region: the environment variable `GONE` is not set")
    );
    assert_eq!(secrets.mask("hunter2 hunter3"), "*** ***");
}

#[test]
fn what_a_schema_marks_is_secret_from_then_on() {
    use atex_plugin_api::describe::Kind;
    let yaml = "
provisioners: {lab: {use: acme, pins: [hunter2, '${secret:PASS}'], plain: hunter2x}}
reporters: [{use: web, pin: hunter3}]
";
    let fixture = Fixture::named(yaml)
        .variable("PASS", "hunter4")
        .with(|options| options.policy = specs(&["order", "order,pin=hunter5"]));
    let plan = fixture.plan().with_schemas(|kind, name| match (kind, name) {
        (Kind::Provisioner, "acme") => Some(json!({"properties": {"pins": {"items": {"x-secret": true}}}})),
        (Kind::Reporter, "web") | (Kind::Policy, "order") => {
            Some(json!({"properties": {"pin": {"x-secret": true}}}))
        }
        _ => None,
    });
    assert_eq!(plan.pools[0].provisioner.expose()["pins"], json!(["hunter2", "hunter4"]));
    assert_eq!(plan.pools[0].provisioner.written()["pins"], json!(["${redacted:}", "${secret:PASS}"]));
    assert_eq!(plan.origin.configuration["provisioners"]["lab"]["plain"], "hunter2x");
    assert_eq!(plan.secrets.mask("hunter2 hunter3 hunter4 hunter5"), "*** *** *** ***");
    let stored = serde_json::to_string(&plan.origin).unwrap().replace("hunter2x", "");
    assert!(!stored.contains("hunter"), "{stored}");
    assert!(!format!("{plan:?}").replace("hunter2x", "").contains("hunter"));
}

#[test]
fn paths_that_a_schema_marks_start_where_the_entry_stands() {
    let yaml = "reporters: [{use: web, path: old/x, files: [/a, ./b], other: c}]";
    let fixture = Fixture::named(yaml).with(|options| options.reporter = specs(&["web,path=x"]));
    let schema = json!({"properties": {"path": {"x-path": true}, "files": {"items": {"x-path": true}}}});
    let plan = fixture.plan().with_schemas(|_, _| Some(schema.clone()));
    let resolved = Value::Object(plan.reporters[0].plugin.expose().clone());
    assert_eq!(
        resolved,
        json!({"path": fixture.path("tree/old/x"), "files": ["/a", fixture.path("tree/b")], "other": "c"})
    );
    assert_eq!(plan.reporters[0].plugin.written()["path"], "old/x");
    assert_eq!(plan.reporters[1].plugin.expose()["path"], json!(fixture.path("x")));
}

#[test]
fn what_a_plugin_says_is_blamed_on_the_line_of_its_entry() {
    let fixture = Fixture::named("provisioners:\n  lab: {use: ssh}\n")
        .with(|options| options.policy = specs(&["order"]));
    let plan = fixture.plan();
    let line = plan.pools[0].provisioner.blame("no hosts").to_string();
    assert!(line.ends_with("atex.yaml:2:8: provisioners.lab: no hosts"), "{line}");
    assert_eq!(plan.policies[0][0].blame("no key").to_string(), "--policy: no key");
    assert_eq!(plan.reporters[0].plugin.blame("no").to_string(), "no");
}

#[test]
fn the_usual_reporter_may_be_given_with_other_options() {
    for (given, expected) in [
        ("jsonl,compress=xz", &["jsonl"][..]),
        ("jsonl,path=x", &["jsonl", "jsonl"]),
        ("web", &["jsonl", "web"]),
    ] {
        let plan = Fixture::named("spares: 1").with(|options| options.reporter = specs(&[given])).plan();
        let plugins: Vec<_> = plan.reporters.iter().map(|it| it.plugin.plugin.as_str()).collect();
        assert_eq!(plugins, expected, "{given}");
    }
    // What the configuration names is added to.
    let named = Fixture::named("reporters: [jsonl]").with(|options| options.reporter = specs(&["jsonl"]));
    assert_eq!(named.plan().reporters.len(), 2);
}

#[test]
fn uses_of_one_plugin_have_names_of_their_own() {
    let yaml = "policies: [{use: order, by: a}, {use: order, by: b}, {use: shuffle, name: order}]\nold-results: jsonl\n";
    let plan = Fixture::named(yaml).with(|options| options.reporter = specs(&["jsonl,path=x"])).plan();
    assert_eq!(
        plan.policies[0].iter().map(|it| it.name.as_str()).collect::<Vec<_>>(),
        ["order", "order-2", "order-3"]
    );
    assert_eq!(plan.reporters[1].plugin.name, "jsonl-2");
    assert_eq!(plan.old_results.unwrap().plugin.name, "jsonl-3");
}

#[test]
fn errors_do_not_tell_secrets() {
    let fixture = Fixture::named("slots: '${secret:PASS}'").variable("PASS", "hunter2");
    assert_eq!(fixture.error(), "atex.yaml:1:8: slots: expected a whole number from 1, found \"***\"");
}

#[test]
fn the_schema_knows_every_documented_key() {
    let schema = super::super::schema();
    let keys = |path: &str| -> Vec<String> {
        schema.pointer(path).and_then(Value::as_object).unwrap().keys().cloned().collect()
    };
    let Value::Object(full) = super::super::yaml::parse(FULL).unwrap() else { panic!("a mapping") };
    let known = keys("/properties");
    assert!(full.keys().all(|key| known.contains(key) || key == "env"), "{known:?}");
    assert!(keys("/$defs/LimitsEntry/properties").contains(&"lost-machine-reruns".to_owned()));
    assert_eq!(schema["additionalProperties"], false);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_configuration_panics(lines in prop::collection::vec(
        (prop::sample::select(vec!["slots", "env", "platforms", "provisioners", "policies", "limits", "reporters", "adjust",
            "uploads", "plan", "owner", "old-results", "x"]),
         prop::sample::select(vec!["1", "a", "[a]", "[{use: a}]", "{a: {use: b, max: 2}}", "{a: b}", "[[]]", "~", "{<<: {use: a}}",
            "[{name: a, provisioners: [a, {use: c, host: {slots: 4}}]}]", "'${X:-y}'", "'${Y}'", "[{test: a, b: c}]", "[{from: a, to: /b}]"])),
        0..6)) {
        let yaml = lines.iter().fold(String::new(), |yaml, (key, value)| yaml + key + ": " + value + "\n");
        let fixture = Fixture::named(&yaml);
        if let Err(error) = plan(&fixture.options, &fixture.around()) {
            let line = error.to_string();
            prop_assert!(line.contains("atex.yaml:") && !line.contains('\n'), "{}", line);
        }
    }
}

/// Documents for users that must not fall behind.
const MANUAL: &str = include_str!("../../../../docs/configuration.md");

#[test]
fn the_example_of_the_manual_is_a_configuration() {
    let example = MANUAL.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let fixture = Fixture::named(example).variable("ACME_TOKEN", "hunter2");
    let plan = fixture.plan();
    assert_eq!(plan.pools[0].provisioner.expose()["user"], "root");
    assert_eq!(names(&plan), [("rhel-9@x86_64", &listed(&[0, 1])), ("fedora-42@x86_64", &listed(&[0]))]);
}

#[test]
fn the_manual_knows_every_key() {
    let schema = super::super::schema();
    let mut keys: Vec<&str> = Vec::new();
    let definitions = schema["$defs"].as_object().unwrap().values();
    for definition in definitions.chain([&schema]) {
        let properties = definition.get("properties").and_then(Value::as_object);
        keys.extend(properties.into_iter().flat_map(|map| map.keys().map(String::as_str)));
    }
    assert!(keys.len() > 40, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !MANUAL.contains(**key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
