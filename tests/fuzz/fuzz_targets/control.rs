//! Any bytes on the control channel are events or one violation, the same however they were cut, and names are harmless.

#![no_main]

use std::path::{Component, Path};

use atex_host::executor::control::{self, Event, Header, Parser, Part};
use libfuzzer_sys::fuzz_target;

/// The first byte says how long the pieces are in which the rest comes.
fuzz_target!(|bytes: &[u8]| {
    let Some((&size, stream)) = bytes.split_first() else { return };
    let whole = events(&mut std::iter::once(stream));
    assert_eq!(whole, events(&mut stream.chunks(usize::from(size).max(1))), "pieces make a difference");
});

/// What came, with the data of a file in one piece.
fn events<'s>(pieces: &mut dyn Iterator<Item = &'s [u8]>) -> Vec<String> {
    let mut parser = Parser::new([]);
    let (mut seen, mut data, mut facts) = (Vec::new(), (0, Vec::new()), 0);
    for mut input in pieces {
        loop {
            match parser.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Result(Part::Data { file, bytes }))) => {
                    assert!(!bytes.is_empty());
                    if data.0 != file {
                        seen.push(format!("{data:?}"));
                        data = (file, Vec::new());
                    }
                    data.1.extend_from_slice(bytes);
                }
                Ok(Some(event)) => {
                    check(&event, &mut facts);
                    seen.push(format!("{data:?} {event:?}"));
                    data = (0, Vec::new());
                }
                Err(violation) => seen.push(violation.to_string()),
            }
        }
        assert!(input.is_empty());
    }
    seen.push(format!("{data:?} {:?}", parser.finish()));
    assert!(seen.iter().filter(|text| text.starts_with("control line")).count() <= 1, "told once: {seen:?}");
    seen
}

fn check(event: &Event<'_>, facts: &mut usize) {
    match event {
        Event::Result(Part::Header(header)) => check_header(header),
        Event::Machine { key, value } => {
            *facts += 1;
            assert!(!key.is_empty() && key.len() <= control::MAX_FACT_KEY);
            assert!(value.len() <= control::MAX_FACT_VALUE);
        }
        _ => {}
    }
}

fn check_header(header: &Header) {
    assert!(header.size <= control::MAX_JSON);
    let testout = header.object.get("testout").and_then(|name| name.as_str());
    for name in
        header.name.as_deref().into_iter().chain(header.files.iter().map(|file| &*file.name)).chain(testout)
    {
        assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}");
        assert!(Path::new(name).components().all(|part| matches!(part, Component::Normal(_))), "{name:?}");
    }
}
