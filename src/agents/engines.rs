//! Whether this Node.js is what a package's `engines.node` asks for.
//!
//! The ranges that packages really write: `>=20`, `>=18.14.0`, `^20.0.0 || >=22`, `20.x`, `>=18 <25`. What can't be
//! read counts as fitting: npm itself only warns here, and a wrong refusal would be worse than a late failure.

type Version = (u64, u64, u64);

/// True when `version` (as `node --version` says it) fits `range`.
pub(super) fn fits(range: &str, version: &str) -> bool {
    let Some((version, _)) = parse(version) else { return true };
    range.split("||").any(|all| comparators(all).iter().all(|one| one_fits(one, version)))
}

/// Splits at spaces, and joins an operator that stands alone with its version.
fn comparators(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match found.last_mut().filter(|last| last.ends_with(['>', '<', '=', '^', '~'])) {
            Some(operator) => operator.push_str(word),
            None => found.push(word.to_owned()),
        }
    }
    found
}

fn one_fits(comparator: &str, version: Version) -> bool {
    let start = comparator.find(|c: char| c.is_ascii_digit()).unwrap_or(comparator.len());
    let (operator, rest) = comparator.split_at(start);
    let Some((wanted, parts)) = parse(rest) else { return true };
    let below_next = match parts {
        1 => version.0 <= wanted.0,
        2 => (version.0, version.1) <= (wanted.0, wanted.1),
        _ => version <= wanted,
    };
    match operator.trim_end_matches('v') {
        ">=" => version >= wanted,
        ">" => !below_next,
        "<" => version < wanted,
        "<=" => below_next,
        "^" => version >= wanted && version.0 == wanted.0,
        "~" => version >= wanted && version.0 == wanted.0 && (parts < 2 || version.1 == wanted.1),
        "" | "=" => version >= wanted && below_next,
        _ => true,
    }
}

/// The numbers of `v20.1.2`, `20.1` or `20.x`, and how many were given.
fn parse(text: &str) -> Option<(Version, usize)> {
    let text = text.trim().trim_start_matches('v');
    let release = text.split(['-', '+']).next()?;
    let numbers: Vec<u64> = release.split('.').map_while(|part| part.parse().ok()).collect();
    let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
    (!numbers.is_empty()).then(|| ((at(0), at(1), at(2)), numbers.len()))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn the_ranges_that_packages_write() {
        for (range, version, expected) in [
            (">=20", "v20.20.2", true),
            (">=22", "v20.20.2", false),
            (">= 22.0.0", "v20.20.2", false),
            (">=18.14.0", "v18.13.9", false),
            ("^20.0.0 || >=22", "v20.1.0", true),
            ("^20.0.0 || >=22", "v21.1.0", false),
            (">=18 <20", "v20.0.0", false),
            ("20.x", "v20.5.1", true),
            ("20.x", "v21.0.0", false),
            ("~20.1", "v20.2.0", false),
            (">20", "v20.9.9", false),
            ("<=20", "v20.9.9", true),
            ("*", "v1.0.0", true),
            ("", "v1.0.0", true),
            ("lts/*", "v20.0.0", true),
        ] {
            assert_eq!(fits(range, version), expected, "{range} {version}");
        }
    }
}
