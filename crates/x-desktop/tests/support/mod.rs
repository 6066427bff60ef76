//! A screen for each test: a real Xvfb on a free display, with a home of its own, and programs that end with it.
#![allow(dead_code)] // each test takes what it needs
#![allow(clippy::disallowed_methods)] // a test starts programs itself

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use x_desktop::Display;
use x11rb::connection::Connection as _;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, MapState, Window};
use x11rb::rust_connection::RustConnection;

/// A question to openbox that is older is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(30);

/// For whatever a loaded machine takes its time to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An Xvfb and what runs on it. Dropping it ends both.
pub struct Screen {
    server: Child,
    name: String,
    home: TempDir,
    programs: Vec<Child>,
}

impl Screen {
    /// 1280x800, 24 bits.
    pub fn start() -> Self {
        Self::sized(1280, 800)
    }

    /// Of another size.
    pub fn sized(width: u16, height: u16) -> Self {
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-noreset", "-nolisten", "tcp", "-screen", "0", &format!("{width}x{height}x24")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb is installed");
        let mut number = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb found no display");
        let home = TempDir::new().unwrap();
        Self { server, name: format!(":{}", number.trim()), home, programs: Vec::new() }
    }

    /// `:N`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that programs have as `HOME` and start in.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The server's process, to stop it in the middle of something.
    pub fn server(&mut self) -> &mut Child {
        &mut self.server
    }

    /// What is tested.
    pub fn open(&self) -> Display {
        Display::open(Some(&self.name)).unwrap()
    }

    /// A connection of the test's own.
    pub fn connect(&self) -> (RustConnection, Window) {
        let (conn, screen) = x11rb::connect(Some(&self.name)).unwrap();
        let root = conn.setup().roots[screen].root;
        (conn, root)
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.home.path()).stdin(Stdio::null());
        command.env("DISPLAY", &self.name).env("HOME", self.home.path()).env("LC_ALL", "C.UTF-8");
        // Programs of GTK neither look for a session bus nor keep settings.
        command.env("DBUS_SESSION_BUS_ADDRESS", "disabled:").env("NO_AT_BRIDGE", "1").env("GSETTINGS_BACKEND", "memory");
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, self.home.path());
        }
        command
    }

    /// Starts a program that runs until the screen ends. Gives its process's id.
    pub fn spawn(&mut self, program: &str, args: &[&str]) -> u32 {
        let mut command = self.command(program, args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{program}: {error}"));
        let pid = child.id();
        self.programs.push(child);
        pid
    }

    /// Runs a program to its end and gives what it wrote. It must succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.command(program, args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {} {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts openbox, and waits until it does its work: it forgets what it is asked before.
    pub fn openbox(&mut self) {
        self.spawn("openbox", &["--sm-disable"]);
        let mut display = self.open();
        let mut asked = None;
        wait_for("openbox", || {
            let (question, at) = asked.filter(|(_, at): &(_, Instant)| at.elapsed() < ASK_AGAIN).or_else(|| {
                let question = display.question_manager().ok()??;
                Some((question, Instant::now()))
            })?;
            asked = Some((question, at));
            display.has_answered(question).ok()?.then_some(())
        });
    }

    /// Waits until a window whose class or instance (ICCCM 2.0, section 4.1.2.5) is `class` is seen, and gives its id.
    pub fn wait_for_window(&self, class: &str) -> Window {
        let (conn, root) = self.connect();
        wait_for(class, || find_window(&conn, root, class))
    }

    /// What a file in the home says once `is_right` says so; what it said last if that never happens.
    pub fn wait_for_file(&self, name: &str, is_right: impl Fn(&str) -> bool) -> String {
        let path = self.home.path().join(name);
        let until = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            if is_right(&text) || Instant::now() > until {
                return text;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for child in self.programs.iter_mut().chain([&mut self.server]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks again and again. Panics when nothing comes.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A window that is seen and has this class, anywhere below `under`.
pub fn find_window(conn: &RustConnection, under: Window, class: &str) -> Option<Window> {
    let children = conn.query_tree(under).ok()?.reply().ok()?.children;
    children.into_iter().find_map(|child| {
        let property = conn.get_property(false, child, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 64).ok()?.reply().ok()?;
        let is_named = property.value.split(|&byte| byte == 0).any(|part| part == class.as_bytes());
        let attributes = conn.get_window_attributes(child).ok()?.reply().ok()?;
        match is_named && attributes.map_state == MapState::VIEWABLE {
            true => Some(child),
            false => find_window(conn, child, class),
        }
    })
}
