//! Dates and times of documents: enough to show and compare them, no calendar arithmetic.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

/// A day of the proleptic Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// The day, if the calendar has it: years 1 to 9999.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let known = (1..=9999).contains(&year) && (1..=12).contains(&month) && day >= 1;
        (known && day <= days_in(year, month)).then_some(Self { year, month, day })
    }

    /// As python's `repr` has it.
    pub(super) fn repr(self) -> String {
        format!("datetime.date({}, {}, {})", self.year, self.month, self.day)
    }

    fn next(self) -> Option<Self> {
        let Self { year, month, day } = self;
        Self::new(year, month, day + 1)
            .or_else(|| Self::new(year, month + 1, 1))
            .or_else(|| Self::new(year + 1, 1, 1))
    }

    /// Days since 1 January of the year 1.
    fn ordinal(self) -> i64 {
        let before = i64::from(self.year) - 1;
        let months: i64 = (1..self.month).map(|month| i64::from(days_in(self.year, month))).sum();
        before * 365 + before / 4 - before / 100 + before / 400 + months + i64::from(self.day) - 1
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

fn days_in(year: u16, month: u8) -> u8 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A day and a time, with the distance to UTC if the document gives one.
#[derive(Clone, Copy, Debug)]
pub struct DateTime {
    date: Date,
    hour: u8,
    minute: u8,
    second: u8,
    microsecond: u32,
    /// Seconds east of UTC.
    offset: Option<i32>,
}

impl DateTime {
    /// The time, if a clock can show it (no leap seconds) and the offset is less than a day.
    pub fn new(
        date: Date,
        (hour, minute, second): (u8, u8, u8),
        microsecond: u32,
        offset: Option<i32>,
    ) -> Option<Self> {
        let clock = hour < 24 && minute < 60 && second < 60 && microsecond < 1_000_000;
        let near = offset.is_none_or(|seconds| seconds.abs() < 86_400);
        (clock && near).then_some(Self { date, hour, minute, second, microsecond, offset })
    }

    /// One second later, unless the calendar ends there.
    pub(crate) fn next_second(mut self) -> Option<Self> {
        self.second += 1;
        if self.second == 60 {
            (self.second, self.minute) = (0, self.minute + 1);
        }
        if self.minute == 60 {
            (self.minute, self.hour) = (0, self.hour + 1);
        }
        if self.hour < 24 {
            return Some(self);
        }
        self.hour = 0;
        self.date = self.date.next()?;
        Some(self)
    }

    /// As python's `isoformat` has it, with `separator` between day and time.
    pub(super) fn iso(&self, separator: char) -> String {
        let mut text =
            format!("{}{separator}{:02}:{:02}:{:02}", self.date, self.hour, self.minute, self.second);
        if self.microsecond != 0 {
            let _ = write!(text, ".{:06}", self.microsecond);
        }
        if let Some(offset) = self.offset {
            let sign = if offset < 0 { '-' } else { '+' };
            let (hours, rest) = (offset.abs() / 3600, offset.abs() % 3600);
            let _ = write!(text, "{sign}{hours:02}:{:02}", rest / 60);
            if rest % 60 != 0 {
                let _ = write!(text, ":{:02}", rest % 60);
            }
        }
        text
    }

    /// As python's `repr` has it.
    pub(super) fn repr(&self) -> String {
        let Date { year, month, day } = self.date;
        let mut text = format!("datetime.datetime({year}, {month}, {day}, {}, {}", self.hour, self.minute);
        if self.second != 0 || self.microsecond != 0 {
            let _ = write!(text, ", {}", self.second);
        }
        if self.microsecond != 0 {
            let _ = write!(text, ", {}", self.microsecond);
        }
        match self.offset {
            None => {}
            Some(0) => text.push_str(", tzinfo=datetime.timezone.utc"),
            Some(offset) => {
                let (days, seconds) = (offset.div_euclid(86_400), offset.rem_euclid(86_400));
                let days = if days == 0 { String::new() } else { format!("days={days}, ") };
                let _ =
                    write!(text, ", tzinfo=datetime.timezone(datetime.timedelta({days}seconds={seconds}))");
            }
        }
        text.push(')');
        text
    }

    /// Microseconds since the beginning of the year 1, in UTC if the offset is known.
    pub(super) fn instant(&self) -> i64 {
        let clock = i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        let seconds = self.date.ordinal() * 86_400 + clock - i64::from(self.offset.unwrap_or(0));
        seconds * 1_000_000 + i64::from(self.microsecond)
    }

    /// The order in time; none between a time with an offset and one without.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        (self.offset.is_some() == other.offset.is_some()).then(|| self.instant().cmp(&other.instant()))
    }
}

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iso(' '))
    }
}
