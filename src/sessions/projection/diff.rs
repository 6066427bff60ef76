//! The difference of two texts as one hunk: what lies between the lines that both begin and end with.

/// A unified hunk without context, and whether it was cut at `max_bytes`.
pub(super) fn hunk(old: &str, new: &str, max_bytes: usize) -> (String, bool) {
    let (olds, news): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = olds.iter().zip(&news).take_while(|(a, b)| a == b).count();
    let shorter = olds.len().min(news.len()) - head;
    let tail = olds.iter().rev().zip(news.iter().rev()).take(shorter).take_while(|(a, b)| a == b).count();
    let (gone, come) = (&olds[head..olds.len() - tail], &news[head..news.len() - tail]);
    let mut text = format!("@@ -{} +{} @@\n", range(head, gone.len()), range(head, come.len()));
    let lines = gone.iter().map(|line| ('-', *line)).chain(come.iter().map(|line| ('+', *line)));
    for (sign, line) in lines {
        if text.len() + line.len() + 2 > max_bytes {
            return (text, true);
        }
        text.push(sign);
        text.push_str(line);
        text.push('\n');
    }
    (text, false)
}

/// As `diff -u` counts: from 1, and the line before when there are none.
fn range(head: usize, count: usize) -> String {
    match count {
        0 => format!("{head},0"),
        1 => format!("{}", head + 1),
        _ => format!("{},{count}", head + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::hunk;

    #[test]
    fn only_what_differs_is_told() {
        assert_eq!(hunk("a\nb\nc\n", "a\nx\ny\nc\n", 99), ("@@ -2 +2,2 @@\n-b\n+x\n+y\n".into(), false));
        assert_eq!(hunk("", "one\n", 99), ("@@ -0,0 +1 @@\n+one\n".into(), false));
        assert_eq!(hunk("a\na\n", "a\n", 99), ("@@ -2 +1,0 @@\n-a\n".into(), false));
        assert_eq!(hunk("a", "a", 99), ("@@ -1,0 +1,0 @@\n".into(), false));
    }

    #[test]
    fn it_ends_with_a_whole_line() {
        assert_eq!(hunk("", "one\ntwo\n", 22), ("@@ -0,0 +1,2 @@\n+one\n".into(), true));
    }
}
