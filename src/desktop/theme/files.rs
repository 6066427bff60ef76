//! One value in a configuration that is its user's: everything else in it stays.

/// The value of a key in a file of GTK's settings.
pub(super) fn ini_value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| value_of(line, key))
}

/// The value, if the line is the key's.
fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (name, value) = line.split_once('=')?;
    (name.trim() == key).then_some(value.trim())
}

/// With another value, or with one more below `[Settings]`.
pub(super) fn with_ini_value(text: &str, key: &str, value: &str) -> String {
    let new = format!("{key}={value}");
    let is_there = ini_value(text, key).is_some();
    let mut lines: Vec<&str> = text.lines().map(|line| if value_of(line, key).is_some() { &new } else { line }).collect();
    if !is_there {
        let head = lines.iter().position(|line| line.trim() == "[Settings]").unwrap_or_else(|| {
            lines.push("[Settings]");
            lines.len() - 1
        });
        lines.insert(head + 1, &new);
    }
    lines.join("\n") + "\n"
}

/// What openbox's configuration has between `<theme>` and `</theme>`, with what is before and after.
fn theme(xml: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = xml.split_at(xml.find("<theme>")?);
    let (theme, after) = rest.split_at(rest.find("</theme>")?);
    Some((before, theme, after))
}

/// The text of the first such element, with what is before and after.
fn element<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let open = format!("<{name}>");
    let (before, rest) = xml.split_at(xml.find(&open)? + open.len());
    let (text, after) = rest.split_at(rest.find(&format!("</{name}>"))?);
    Some((before, text, after))
}

/// Where the theme's own name begins to be looked for: fonts have names, too.
fn beyond_fonts(theme: &str) -> usize {
    let (mut at, name) = (0, "<name>");
    loop {
        let rest = &theme[at..];
        match (rest.find("<font"), rest.find(name)) {
            (Some(font), Some(named)) if font < named => {
                let Some(end) = rest[font..].find("</font>") else { return at };
                at += font + end;
            }
            _ => return at,
        }
    }
}

/// The name of openbox's theme.
pub(super) fn openbox_theme(xml: &str) -> Option<String> {
    let (_, theme, _) = theme(xml)?;
    let (_, name, _) = element(&theme[beyond_fonts(theme)..], "name")?;
    Some(plain(name.trim()))
}

/// The same with another theme; `None` when it names none.
pub(super) fn with_openbox_theme(xml: &str, name: &str) -> Option<String> {
    let (before, theme, after) = theme(xml)?;
    let (fonts, rest) = theme.split_at(beyond_fonts(theme));
    let (open, _, close) = element(rest, "name")?;
    Some([before, fonts, open, &escaped(name), close, after].concat())
}

/// The first font, as GTK names fonts.
pub(super) fn openbox_fonts(xml: &str) -> Option<String> {
    let (_, theme, _) = theme(xml)?;
    let font = &theme[theme.find("<font")?..];
    let ((_, family, _), (_, points, _)) = (element(font, "name")?, element(font, "size")?);
    Some(format!("{} {}", plain(family.trim()), points.trim()))
}

/// The same with another font everywhere; `None` when it names none.
pub(super) fn with_openbox_fonts(xml: &str, family: &str, points: u32) -> Option<String> {
    let (before, theme, after) = theme(xml)?;
    let (mut out, mut rest) = (before.to_owned(), theme);
    rest.find("<font")?;
    while let Some(start) = rest.find("<font") {
        let end = start + rest[start..].find("</font>")?;
        let (open, _, close) = element(&rest[start..end], "name")?;
        let named = [open, &escaped(family), close].concat();
        let (open, _, close) = element(&named, "size")?;
        out.extend([&rest[..start], open, &points.to_string(), close]);
        rest = &rest[end..];
    }
    out.extend([rest, after]);
    Some(out)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn plain(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = include_str!("../../../desktop/rc.xml");

    #[test]
    fn one_key_changes_and_nothing_else() {
        let text = "# mine\n[Settings]\ngtk-theme-name = Adwaita\nother=1\n";
        assert_eq!(ini_value(text, "gtk-theme-name"), Some("Adwaita"));
        assert_eq!(with_ini_value(text, "gtk-theme-name", "B"), "# mine\n[Settings]\ngtk-theme-name=B\nother=1\n");
        assert_eq!(with_ini_value(text, "new", "x"), "# mine\n[Settings]\nnew=x\ngtk-theme-name = Adwaita\nother=1\n");
        assert_eq!(with_ini_value("", "new", "x"), "[Settings]\nnew=x\n");
        assert_eq!(with_ini_value("[Other]\na=1", "new", "x"), "[Other]\na=1\n[Settings]\nnew=x\n");
    }

    #[test]
    fn the_theme_has_another_name_and_the_fonts_keep_theirs() {
        assert_eq!(openbox_theme(DEFAULT).as_deref(), Some("Clearlooks"));
        let other = with_openbox_theme(DEFAULT, "A & B").expect("a theme");
        assert_eq!(openbox_theme(&other).as_deref(), Some("A & B"));
        assert_eq!(other.replace("A &amp; B", "Clearlooks"), DEFAULT);
        let fonts_first = "<theme><font place=\"a\"><name>F</name><size>9</size></font><name>T</name></theme>";
        assert_eq!(openbox_theme(fonts_first).as_deref(), Some("T"));
        assert_eq!(with_openbox_theme(fonts_first, "U").as_deref(), Some(&*fonts_first.replace(">T<", ">U<")));
        for xml in ["", "<theme>", "<theme></theme>", "<theme><name>T</theme>", "<theme><font><name>x</name></theme>"] {
            let _ = (openbox_theme(xml), with_openbox_fonts(xml, "F", 1)); // no panic
            assert!(with_openbox_fonts(xml, "F", 1).is_none(), "{xml}");
        }
    }

    #[test]
    fn all_fonts_change() {
        assert_eq!(openbox_fonts(DEFAULT).as_deref(), Some("DejaVu Sans 10"));
        let other = with_openbox_fonts(DEFAULT, "Serif", 14).expect("fonts");
        assert_eq!(other.matches("<name>Serif</name><size>14</size>").count(), 4);
        assert_eq!(other.replace("<name>Serif</name><size>14<", "<name>DejaVu Sans</name><size>10<"), DEFAULT);
    }
}
