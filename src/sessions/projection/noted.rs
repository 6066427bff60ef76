//! What the fold noticed that the session's row and traces want to know.

/// What one update was about.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Noted {
    /// Nothing that anybody keeps beside the events.
    #[default]
    Nothing,
    /// A piece of a message or of thinking.
    Text {
        /// Its length in bytes.
        bytes: usize,
    },
    /// A tool call began, went on or ended.
    Tool(Box<ToolNoted>),
    /// The session's title; None when it was taken away.
    Title(Option<String>),
    /// The id of the mode that is now on.
    Mode(String),
    /// All configuration options.
    ConfigOptions {
        /// The array as JSON text.
        json: String,
        /// The value of the option of category `model`.
        model: Option<String>,
        /// The value of the option of category `mode`.
        mode: Option<String>,
    },
    /// All commands, the array as JSON text.
    AvailableCommands(String),
    /// How full the context is, what it has cost.
    Usage(Usage),
    /// It could not be read, or is of a kind we don't know.
    Unparsed,
}

/// Tokens in the context and cost of the session so far (ACP v1, `usage_update`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// Tokens in the context.
    pub used: u64,
    /// Tokens that the context can hold.
    pub size: u64,
    /// Cost since the session began, in `currency`.
    pub cost_amount: Option<f64>,
    /// ISO 4217, or another unit such as `credits`.
    pub cost_currency: Option<String>,
}

/// A tool call after an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolNoted {
    /// Its item.
    pub item_id: String,
    /// The agent's id of the call.
    pub call_id: String,
    /// The tool's name as a program knows it, when the agent tells it.
    pub name: Option<String>,
    /// What it does, in words.
    pub title: Option<String>,
    /// ACP's category: read, edit, execute, ….
    pub kind: Option<String>,
    /// The call that this one is a part of (a subagent's).
    pub parent_call_id: Option<String>,
    /// What the update did.
    pub phase: Phase,
    /// Length of the arguments as JSON, so far.
    pub arguments_bytes: usize,
    /// Length of content, raw output and terminal output together, so far.
    pub output_bytes: usize,
    /// Paths of the files it is about.
    pub paths: Vec<String>,
}

/// Where a tool call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Seen for the first time.
    Started,
    /// Something changed.
    Progress,
    /// Came after its end.
    Late,
    /// It is over, perhaps also seen for the first time.
    Ended {
        /// The agent says that it failed.
        failed: bool,
    },
}
