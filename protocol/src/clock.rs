//! Time as an argument: the rim reads the clocks once a turn, everything below is told.
use std::fmt::Write as _;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds since the process started; never goes back. Deadlines are counted in it.
    pub mono_us: u64,
    /// Nanoseconds since the Unix epoch, by the wall clock. Only for what people and other programs read.
    pub unix_ns: u64,
}

impl Now {
    /// Milliseconds since the process started.
    pub fn mono_ms(self) -> u64 {
        self.mono_us / 1_000
    }

    /// Whole seconds since the Unix epoch: the unit of JWT claims.
    pub fn unix_seconds(self) -> u64 {
        self.unix_ns / 1_000_000_000
    }

    /// Milliseconds since the Unix epoch: the unit of UUIDv7.
    pub fn unix_ms(self) -> u64 {
        self.unix_ns / 1_000_000
    }
}

/// Appends an RFC 3339 UTC time with nine fractional digits and `Z`, the form of `occurred_at` and `timestamp`.
pub fn write_rfc3339(out: &mut Vec<u8>, unix_ns: u64) {
    let (year, month, day, second_of_day) = civil(unix_ns / 1_000_000_000);
    let nanos = unix_ns % 1_000_000_000;
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let mut text = Fixed::<40>::default();
    // Never fails: a `u64` of nanoseconds ends in the year 2554, so the text is always 30 bytes.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
    out.extend_from_slice(text.as_bytes());
}

/// Reads an RFC 3339 time, in nanoseconds since the Unix epoch: any offset, up to nine fractional digits. `None` for
/// anything else, and for what lies before 1970 or after the year 2553; a leap second counts as the second after it.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (time, rest) = rest.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let (year, month, day) = triple(date, 4, '-')?;
    let (hour, minute, second) = triple(time, 2, ':')?;
    let (nanos, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(rest) => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (fraction, zone) = rest.split_at(digits);
            let unit = 10_u64.checked_pow(9_u32.checked_sub(u32::try_from(digits).ok()?)?)?;
            (fraction.parse::<u64>().ok()? * unit, zone)
        }
    };
    let offset_s = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            let seconds = (hours * 3_600 + minutes * 60) as i64;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1970..2554).contains(&year) || !(1..=days_of_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Years that begin in March, so that the leap day is the last one: the reverse of `civil`.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted_year * 365 + shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = days + (153 * shifted_month + 2) / 5 + day - 1 - 719_468;
    let seconds = (days * 86_400 + hour * 3_600 + minute * 60 + second) as i64 - offset_s;
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Three numbers with a sign between them: the first of `first` digits, the others of two.
fn triple(text: &str, first: usize, between: char) -> Option<(u64, u64, u64)> {
    let mut parts = text.split(between);
    let numbers = (digits(parts.next()?, first)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    parts.next().is_none().then_some(numbers)
}

/// Exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u64> {
    let fits = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Appends an RFC 9110 §5.6.7 IMF-fixdate, the form of the `date` header.
pub fn write_http_date(out: &mut Vec<u8>, unix_seconds: u64) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (year, month, day, second_of_day) = civil(unix_seconds);
    let weekday = DAYS[(unix_seconds / 86_400 % 7) as usize];
    let month = MONTHS[(month - 1) as usize];
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let mut text = Fixed::<40>::default();
    let _ = write!(text, "{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT");
    out.extend_from_slice(text.as_bytes());
}

/// Days to civil date on the proleptic Gregorian calendar (eras of 400 years counted from March).
fn civil(unix_seconds: u64) -> (u64, u64, u64, u64) {
    let days = unix_seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day, unix_seconds % 86_400)
}

/// A text buffer on the stack, so that a timestamp costs no allocation.
struct Fixed<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Self {
        Fixed { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Fixed<N> {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> std::fmt::Write for Fixed<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(unix_ns: u64) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, unix_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_time_that_was_written_is_read_again() {
        for unix_ns in [0, 1, 951_782_400_000_000_000, 1_767_323_045_123_456_789, 18_400_000_000_000_000_000] {
            let mut text = Vec::new();
            write_rfc3339(&mut text, unix_ns);
            assert_eq!(parse_rfc3339(std::str::from_utf8(&text).unwrap()), Some(unix_ns));
        }
        // Every day up to the year 2553.
        for day in 0..213_000_u64 {
            let mut text = Vec::new();
            write_rfc3339(&mut text, day * 86_400_000_000_000);
            assert_eq!(parse_rfc3339(std::str::from_utf8(&text).unwrap()), Some(day * 86_400_000_000_000));
        }
    }

    #[test]
    fn times_of_other_writers_are_read_and_what_is_none_is_not() {
        let rows = [
            ("1970-01-01T00:00:01Z", Some(1_000_000_000)),
            ("1970-01-01t00:00:01.5z", Some(1_500_000_000)),
            ("1970-01-01T01:00:01.000000001+01:00", Some(1_000_000_001)),
            ("1969-12-31T23:30:00-00:30", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800_000_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00.1234567890Z", None),
            ("2026-01-01 00:00:00Z", None),
            ("2026-01-01T00:00:00+24:00", None),
            ("9999-01-01T00:00:00Z", None),
            ("2026-01-é1T00:00:00Z", None),
            ("", None),
        ];
        for (text, expected) in rows {
            assert_eq!(parse_rfc3339(text), expected, "{text}");
        }
    }

    #[test]
    fn rfc3339_knows_epochs_leap_days_and_year_ends() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_767_323_045_123_456_789), "2026-01-02T03:04:05.123456789Z");
        assert_eq!(rfc3339(951_782_400_000_000_000), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(rfc3339(1_735_689_599_999_999_999), "2024-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(u64::MAX).len(), 30);
    }

    #[test]
    fn http_dates_are_imf_fixdates() {
        let mut out = Vec::new();
        write_http_date(&mut out, 784_111_777);
        assert_eq!(out, b"Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
