use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// What a stream says, with the data of files in one piece each.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Header(Box<Header>),
    Data(usize, Vec<u8>),
    Other(Event<'static>),
}

fn feed(parser: &mut Parser, mut input: &[u8], said: &mut Vec<Said>) -> Result<(), Violation> {
    while let Some(event) = parser.next(&mut input)? {
        match event {
            Event::Result(Part::Header(header)) => said.push(Said::Header(header)),
            Event::Result(Part::Data { file, bytes }) => match said.last_mut() {
                Some(Said::Data(last, data)) if *last == file => data.extend_from_slice(bytes),
                _ => said.push(Said::Data(file, bytes.to_vec())),
            },
            Event::Result(Part::End) => said.push(Said::Other(Event::Result(Part::End))),
            Event::ExitCode(code) => said.push(Said::Other(Event::ExitCode(code))),
            Event::Duration(change) => said.push(Said::Other(Event::Duration(change))),
            Event::Disconnect => said.push(Said::Other(Event::Disconnect)),
            Event::Reset => said.push(Said::Other(Event::Reset)),
            Event::Machine { key, value } => said.push(Said::Other(Event::Machine { key, value })),
            Event::Noop => said.push(Said::Other(Event::Noop)),
        }
    }
    assert!(input.is_empty(), "all input is used up");
    Ok(())
}

fn parse_in(chunks: &mut dyn Iterator<Item = &[u8]>) -> (Vec<Said>, Option<Violation>) {
    let mut parser = Parser::new([]);
    let mut said = Vec::new();
    let mut broken = None;
    for chunk in chunks {
        if let Err(violation) = feed(&mut parser, chunk, &mut said) {
            assert_eq!(broken.replace(violation), None, "a broken parser says nothing more");
        }
    }
    let end = parser.finish();
    (said, broken.or(end.err()))
}

fn parse(stream: &[u8]) -> (Vec<Said>, Option<Violation>) {
    parse_in(&mut std::iter::once(stream))
}

fn result(value: &Value, data: &[u8]) -> Vec<u8> {
    let json = value.to_string();
    [format!("result {}\n{json}", json.len()).as_bytes(), data].concat()
}

fn other(event: Event<'static>) -> Said {
    Said::Other(event)
}

#[test]
fn words() {
    let seconds = Duration::from_secs;
    let table: [(&str, Event<'static>); 15] = [
        ("exitcode 0", Event::ExitCode(0)),
        ("exitcode 255 ", Event::ExitCode(255)),
        ("duration 90", Event::Duration(DurationChange::Set(seconds(90)))),
        ("duration 5m", Event::Duration(DurationChange::Set(seconds(300)))),
        ("duration +2h", Event::Duration(DurationChange::Add(seconds(7200)))),
        ("duration -1d", Event::Duration(DurationChange::Subtract(seconds(86400)))),
        ("duration 10s", Event::Duration(DurationChange::Set(seconds(10)))),
        ("duration save", Event::Duration(DurationChange::Save)),
        ("duration restore", Event::Duration(DurationChange::Restore)),
        ("disconnect", Event::Disconnect),
        ("reset", Event::Reset),
        ("noop", Event::Noop),
        ("noop whatever", Event::Noop),
        ("machine a=", Event::Machine { key: "a".into(), value: String::new() }),
        ("machine snap=a = b ", Event::Machine { key: "snap".into(), value: "a = b ".into() }),
    ];
    for (line, event) in table {
        assert_eq!(parse(format!("{line}\n").as_bytes()), (vec![other(event)], None), "{line}");
    }
}

#[test]
fn broken_rules() {
    let key = "k".repeat(65);
    let value = "v".repeat(1025);
    let table: &[(&str, &str)] = &[
        ("\n", "an empty line"),
        ("resutl 3\n", "did you mean `result`?"),
        ("hello world\n", "unknown word `hello`"),
        ("result\n", "takes a number of bytes"),
        ("result -1\n", "takes a number of bytes"),
        ("result +1\n", "takes a number of bytes"),
        ("result 1048577\n", "at most 1048576 bytes"),
        ("result 99999999999999999999999\n", "takes a number of bytes"),
        ("result 0\n", "invalid JSON"),
        ("exitcode\n", "from 0 to 255"),
        ("exitcode 256\n", "from 0 to 255"),
        ("exitcode -1\n", "from 0 to 255"),
        ("exitcode 0\nexitcode 0\n", "told before"),
        ("duration\n", "takes a time"),
        ("duration 5 minutes\n", "takes a time"),
        ("duration ++5\n", "takes a time"),
        ("disconnect now\n", "takes no argument"),
        ("reset now\n", "takes no argument"),
        ("machine x\n", "KEY=VALUE"),
        ("machine =x\n", "1 to 64 bytes"),
        ("noop\r\n", "carriage return"),
        ("noop \u{1b}\n", "byte 0x1b"),
        ("machine k=\u{e9}\n", "byte 0xc3"),
        ("noop", "before the newline"),
        ("result 3\n{}", "after 2 of 3 bytes of the JSON object"),
        ("result 2\n[]", "not a list"),
        ("result 3\n{]}", "invalid JSON"),
    ];
    for (stream, rule) in table {
        let (_, broken) = parse(stream.as_bytes());
        let broken = broken.expect(stream).to_string();
        assert!(broken.contains(rule), "{stream:?}: {broken}");
    }
    for line in [format!("machine {key}=x\n"), format!("machine x={value}\n")] {
        assert!(parse(line.as_bytes()).1.is_some());
    }
}

#[test]
fn wrong_objects() {
    let table = [
        (json!({"name": 1}), "`name` is a string, not a number"),
        (json!({"partial": "yes"}), "`partial` is true or false"),
        (json!({"files": {}}), "`files` is a list, not an object"),
        (json!({"files": ["x"]}), "files[0]"),
        (json!({"files": [{"name": "", "length": 0}]}), "files[0] needs a `name`"),
        (json!({"files": [{"name": "x", "length": 0}, {"name": "x"}]}), "files[1] needs a `length`"),
        (json!({"files": [{"name": "x", "length": -1}]}), "files[0] needs a `length`"),
        (json!({"files": [{"name": "x", "length": 1.5}]}), "files[0] needs a `length`"),
        (json!({"status": "infra"}), "host's own"),
        (json!({"status": ""}), "empty"),
        (json!({"status": 3}), "`status` is a string"),
        (json!({"status": "a\nb"}), "control characters"),
        (json!({"status": "x".repeat(129)}), "longer than 128"),
        (json!({"testout": ""}), "`testout` is empty"),
        (json!({"testout": []}), "`testout` is a string"),
    ];
    for (object, rule) in table {
        let (said, broken) = parse(&result(&object, b""));
        assert_eq!(said, [], "{object}");
        let broken = broken.expect("a violation").to_string();
        assert!(broken.starts_with("control line 1 (result ") && broken.contains(rule), "{object}: {broken}");
    }
}

#[test]
fn lines_and_facts_have_limits() {
    let longest = format!("noop {}\n", "x".repeat(MAX_LINE - 6));
    assert_eq!(longest.len(), MAX_LINE);
    assert_eq!(parse(longest.as_bytes()), (vec![other(Event::Noop)], None));
    let longer = format!("noop {}\n", "x".repeat(MAX_LINE - 5));
    assert!(parse(longer.as_bytes()).1.unwrap().to_string().contains("longer than 4096"));
    assert!(parse(&vec![b'x'; 1 << 20]).1.unwrap().to_string().contains("longer than 4096"));

    let mut parser = Parser::new(["key0".to_owned(), "old".to_owned()]);
    let mut said = Vec::new();
    for number in 0..99 {
        let fact = format!("machine key{number}=1\n");
        feed(&mut parser, fact.as_bytes(), &mut said).unwrap();
    }
    feed(&mut parser, b"machine old=2\n", &mut said).unwrap();
    let broken = feed(&mut parser, b"machine new=2\n", &mut said).unwrap_err();
    assert_eq!((broken.line, broken.rule.as_str()), (101, "a machine has at most 100 facts"));
}

#[test]
fn a_result_and_its_files() {
    let object = json!({
        "status": "pass", "name": "../a/\u{7}b", "partial": true, "x": [1, null], "testout": "/t",
        "files": [{"name": "/e", "length": 0}, {"name": "f", "length": 3}, {"name": "g", "length": 0}],
    });
    let stream = [&result(&object, b"a\nb")[..], b"noop\n"].concat();
    let (said, broken) = parse(&stream);
    assert_eq!(broken, None);
    let [Said::Header(header), data, end, noop] = &said[..] else { panic!("{said:?}") };
    assert_eq!(header.name.as_deref(), Some("a/_b"));
    assert!(header.partial && !header.forget_files);
    assert_eq!(Value::from(header.object.clone()), json!({"status": "pass", "x": [1, null], "testout": "t"}));
    let names: Vec<_> = header.files.iter().map(|file| (file.name.as_str(), file.length)).collect();
    assert_eq!(names, [("e", 0), ("f", 3), ("g", 0)]);
    assert_eq!(data, &Said::Data(1, b"a\nb".to_vec()));
    assert_eq!(end, &other(Event::Result(Part::End)));
    assert_eq!(noop, &other(Event::Noop));
}

#[test]
fn what_was_said_before_the_cut_stays() {
    let object = json!({"files": [{"name": "a", "length": 2}, {"name": "b", "length": 5}]});
    let (said, broken) = parse(&result(&object, b"aabb"));
    assert_eq!(said.len(), 3);
    assert_eq!(broken.unwrap().rule, "the channel ended after 2 of 5 bytes of files[1]");
    let empty = json!({"files": [{"name": "a", "length": 0}]});
    assert_eq!(parse(&result(&empty, b"")).1, None, "nothing is missing");
}

#[test]
fn nesting_is_limited() {
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let stream = format!("result {}\n{deep}", deep.len());
    assert!(parse(stream.as_bytes()).1.unwrap().rule.starts_with("invalid JSON"));
}

/// Streams that are mostly right, sometimes cut or damaged.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"noop\n".to_vec()),
        Just(b"duration +5m\n".to_vec()),
        Just(b"machine a=b\n".to_vec()),
        Just(b"disconnect\n".to_vec()),
        Just(b"bogus\n".to_vec()),
        ("[a-c]{0,2}", prop::collection::vec(any::<u8>(), 0..20), any::<bool>()).prop_map(
            |(name, data, partial)| {
                let files = json!([{"name": "x", "length": data.len()}, {"name": "y", "length": 0}]);
                result(&json!({"name": name, "partial": partial, "files": files}), &data)
            }
        ),
    ];
    (prop::collection::vec(line, 0..6), any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(lines, cut, whole)| {
            let mut stream = lines.concat();
            if !whole {
                stream.truncate(cut.index(stream.len() + 1));
            }
            stream
        },
    )
}

proptest! {
    #[test]
    fn chunks_make_no_difference(stream in streams(), sizes in prop::collection::vec(1_usize..9, 1..20)) {
        let whole = parse(&stream);
        let mut rest = &stream[..];
        let mut sizes = sizes.iter().cycle();
        let mut chunks = std::iter::from_fn(|| {
            let (chunk, left) = split(rest, *sizes.next().unwrap());
            rest = left;
            (!chunk.is_empty()).then_some(chunk)
        });
        prop_assert_eq!(parse_in(&mut chunks), whole);
    }

    #[test]
    fn any_bytes_are_survived(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        parse(&stream);
    }

    #[test]
    fn any_object_is_survived(json in "\\{\"(name|status|files|partial|testout|note)\":[\\[\\]{}\",:a-z0-9 -]{0,20}\\}") {
        parse(format!("result {}\n{json}", json.len()).as_bytes());
    }
}
