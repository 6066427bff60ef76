//! How much of a list a client gets at once.

use super::problem::ApiError;
use crate::config::as_usize;

/// Entries of a list's page, when it doesn't say.
pub const LIST_DEFAULT: usize = 50;
/// Events of a page, when it doesn't say.
pub const EVENTS_DEFAULT: usize = 100;

/// The size of a page: what was `asked` for, else `default`, or `max` (a bound) when that is less.
///
/// # Errors
/// 400 when it is not 1 to `max`; `name` is the parameter's.
pub fn size(name: &str, asked: Option<usize>, default: usize, max: u64) -> Result<usize, ApiError> {
    let max = as_usize(max);
    match asked {
        None => Ok(default.min(max)),
        Some(size) if (1..=max).contains(&size) => Ok(size),
        Some(_) => Err(ApiError::invalid(format!("{name} must be 1 to {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_was_asked_for_within_its_bound() {
        let of = |asked, max| size("limit", asked, 50, max).map_err(|error| error.detail().to_owned());
        assert_eq!((of(None, 500), of(None, 10)), (Ok(50), Ok(10)), "the default obeys the bound");
        assert_eq!((of(Some(1), 500), of(Some(500), 500)), (Ok(1), Ok(500)));
        for wrong in [0, 501] {
            assert_eq!(of(Some(wrong), 500), Err("invalid request: limit must be 1 to 500".to_owned()));
        }
    }
}
