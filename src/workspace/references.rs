//! References to environment variables in configured texts.

/// A variable that isn't set, and has no default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing(pub(super) String);

/// Replaces `$NAME`, `${NAME}` and `${NAME:-default}` by what `env` says; the default also stands for an empty value.
/// `$$` is a dollar sign, and so is one that begins none of these.
///
/// # Errors
/// The first variable that is missing.
pub(super) fn expand(text: &str, env: &impl Fn(&str) -> Option<String>) -> Result<String, Missing> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('$') {
        expanded.push_str(before);
        let (value, behind) = match Reference::read(behind) {
            Some((Reference::Dollar, behind)) => ("$".to_owned(), behind),
            Some((Reference::Variable { name, default }, behind)) => {
                let value = env(name).filter(|value| default.is_none() || !value.is_empty());
                let value = value.or_else(|| default.map(str::to_owned)).ok_or_else(|| Missing(name.to_owned()))?;
                (value, behind)
            }
            None => ("$".to_owned(), behind),
        };
        expanded.push_str(&value);
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// What stands behind a dollar sign.
enum Reference<'a> {
    Dollar,
    Variable { name: &'a str, default: Option<&'a str> },
}

impl<'a> Reference<'a> {
    /// The reference at the beginning of a text, and what follows it.
    fn read(text: &'a str) -> Option<(Self, &'a str)> {
        if let Some(behind) = text.strip_prefix('$') {
            return Some((Self::Dollar, behind));
        }
        let Some(braced) = text.strip_prefix('{') else {
            let (name, behind) = split_name(text)?;
            return Some((Self::Variable { name, default: None }, behind));
        };
        let (inside, behind) = braced.split_once('}')?;
        let (name, rest) = split_name(inside)?;
        let default = if rest.is_empty() { None } else { Some(rest.strip_prefix(":-")?) };
        Some((Self::Variable { name, default }, behind))
    }
}

/// Letters, digits and underscores, not beginning with a digit (POSIX, Environment Variable Definition).
fn split_name(text: &str) -> Option<(&str, &str)> {
    let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let starts_well = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (length > 0 && starts_well).then(|| text.split_at(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/h".into()),
            "_X1" => Some("$HOME".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references() {
        for (text, expected) in [
            ("", ""),
            ("$HOME/a", "/h/a"),
            ("a${HOME}b$HOME", "a/hb/h"),
            ("$HOMEx", "!HOMEx"),
            ("${_X1}", "$HOME"),
            ("${NO:-d e}", "d e"),
            ("${NO:-}", ""),
            ("${EMPTY:-d}|${EMPTY}|", "d||"),
            ("${HOME:-d}", "/h"),
            ("${NO}", "!NO"),
            ("$$HOME $$", "$HOME $"),
            ("cost: 5$, $1 ${} ${1} ${a b} ${HOME", "cost: 5$, $1 ${} ${1} ${a b} ${HOME"),
            ("ü$HOMEü", "ü/hü"),
        ] {
            let expected = expected.strip_prefix('!').map_or_else(|| Ok(expected.into()), |name| Err(Missing(name.into())));
            assert_eq!(expand(text, &env), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_text_without_dollars_stays(text in "[^$]*") {
            prop_assert_eq!(expand(&text, &env), Ok(text));
        }

        #[test]
        fn any_text_has_a_way_to_be_written(text in ".*") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), &env), Ok(text));
        }
    }
}
