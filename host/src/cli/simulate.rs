//! What `atex-host simulate` prints: a forecast as a table for people, or as one JSON document.

use std::io::{self, Write};

use crate::core::event::{Ms, TestId};
use crate::core::simulate::Forecast;

/// Writes the forecast as a table. `name` says what a test is called.
pub fn write_text(
    forecast: &Forecast,
    deadline: Option<Ms>,
    name: impl Fn(TestId) -> String,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "{:>9}  {:>12}  {:>5}  {:>9}  ends with", "machines", "time", "used", "runs")?;
    for row in &forecast.rows {
        let used = row.utilisation * 100.0;
        let last = row.last_test.map(&name).unwrap_or_default();
        let time = duration(row.makespan_ms);
        writeln!(out, "{:>9}  {time:>12}  {used:>4.0}%  {:>9}  {last}", row.machines, row.runs)?;
    }
    match (deadline, forecast.least_machines) {
        (None, _) => Ok(()),
        (Some(deadline), Some(1)) => writeln!(out, "one machine is enough for {}", duration(deadline)),
        (Some(deadline), Some(least)) => {
            writeln!(out, "{least} machines are enough for {}", duration(deadline))
        }
        (Some(deadline), None) => writeln!(out, "none of these ends within {}", duration(deadline)),
    }
}

/// Writes the forecast as one JSON document with a newline.
pub fn write_json(
    forecast: &Forecast,
    deadline: Option<Ms>,
    name: impl Fn(TestId) -> String,
    out: &mut impl Write,
) -> io::Result<()> {
    let rows: Vec<serde_json::Value> = forecast
        .rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "machines": row.machines,
                "makespan_ms": row.makespan_ms,
                "utilisation": row.utilisation,
                "last_test": row.last_test.map(&name),
                "runs": row.runs,
                "decisions": row.decisions,
                "cpu_ms": row.cpu_ms,
                "cpu_us_per_decision": row.cpu_us_per_decision,
            })
        })
        .collect();
    let document = serde_json::json!({
        "deadline_ms": deadline,
        "least_machines": forecast.least_machines,
        "rows": rows,
    });
    serde_json::to_writer_pretty(&mut *out, &document)?;
    writeln!(out)
}

/// Days, hours, minutes, seconds; the two biggest that are not 0.
fn duration(millis: Ms) -> String {
    let seconds = millis.div_ceil(1000);
    let parts =
        [(seconds / 86_400, 'd'), (seconds / 3600 % 24, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let some: Vec<String> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if some.is_empty() { "0s".into() } else { some.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::simulate::{Outcomes, Row};

    fn forecast() -> Forecast {
        let outcomes = |makespan, busy| Outcomes {
            makespan,
            busy,
            held: 1000,
            runs: 12,
            decisions: 12,
            last_test: Some(3),
            ..Outcomes::default()
        };
        let rows = vec![Row::new(1, &outcomes(90_061_000, 900)), Row::new(2, &outcomes(3_600_000, 500))];
        Forecast { rows, least_machines: Some(2) }
    }

    #[test]
    fn a_table_for_people() {
        let mut out = vec![];
        write_text(&forecast(), Some(7_200_000), |test| format!("/t/{test}"), &mut out).unwrap();
        let want = " machines          time   used       runs  ends with\n        1         1d 1h    90%         12  /t/3\n        2         1h 0m    50%         12  /t/3\n2 machines are enough for 2h 0m\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn a_document_for_programs() {
        let mut out = vec![];
        write_json(&forecast(), None, |test| format!("/t/{test}"), &mut out).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(document["least_machines"], 2);
        assert_eq!(document["deadline_ms"], serde_json::Value::Null);
        assert_eq!(document["rows"][0]["last_test"], "/t/3");
        assert_eq!(document["rows"][1]["makespan_ms"], 3_600_000);
    }

    #[test]
    fn durations_have_two_parts() {
        for (millis, text) in
            [(0, "0s"), (1, "1s"), (61_000, "1m 1s"), (3_600_000, "1h 0m"), (90_061_000, "1d 1h")]
        {
            assert_eq!(duration(millis), text);
        }
    }
}
