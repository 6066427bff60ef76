//! The one table of limits.
//!
//! What a client or an agent could fill has a row here: queues, lines, frames, bodies, histories, maps, and times that
//! somebody waits. Beside their code are only sizes of buffers and slices of work, which nobody notices, and lengths of
//! names, keys and patterns, which belong to the API.

use super::{ConfigError, Env};

/// One row of the table of bounds, for the documentation.
#[derive(Debug, Clone, Copy)]
pub struct BoundRow {
    /// The field's name; the unit is its last word.
    pub name: &'static str,
    /// The default.
    pub default: u64,
    /// What it limits and what happens there.
    pub meaning: &'static str,
}

macro_rules! bounds {
    ($($name:ident = $default:expr, $meaning:literal;)+) => {
        /// Every limit of the server. Changed only through the environment, never at run time.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[allow(missing_docs)] // each field is documented by its row in TABLE
        pub struct Bounds { $(#[doc = $meaning] pub $name: u64,)+ }

        impl Default for Bounds {
            fn default() -> Self { Self { $($name: $default,)+ } }
        }

        impl Bounds {
            /// The bounds with their defaults and meanings, in the order of the documentation.
            pub const TABLE: &'static [BoundRow] = &[
                $(BoundRow { name: stringify!($name), default: $default, meaning: $meaning },)+
            ];

            /// The defaults, changed by `SANDBOXD_<NAME>` where it is set.
            ///
            /// # Errors
            /// [`ConfigError::BadBound`] when a value isn't a whole number of at least 1.
            pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
                Ok(Self { $($name: read_bound(env, stringify!($name), $default)?,)+ })
            }
        }
    };
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

bounds! {
    // http and its streams
    http_body_max_bytes = 2 * MIB, "Body of a JSON request other than an ACP envelope; more is 413.";
    http_header_timeout_ms = 30_000, "Time for a client to send its request line and headers; then the connection is closed.";
    http_body_idle_timeout_ms = 30_000, "Silence in the middle of a request's body; then it is 408 and the connection is closed.";
    http_connections_max = 4096, "Connections at once; further ones wait in the kernel's accept queue.";
    sse_subscribers_max = 1024, "Event streams open at once over all servers; one more is 503.";
    sse_heartbeat_ms = 15_000, "Silence on an event stream before a comment line is sent.";
    sse_chunk_max_bytes = 64 * KIB, "Events handed to one reader's socket at a time: what a slow reader costs in memory.";
    ws_clients_max = 256, "WebSockets open at once, of terminals and of /acp; one more is 503.";
    ws_ping_ms = 15_000, "How often a WebSocket client is pinged; one that says nothing for four times as long is dropped.";
    ws_message_max_bytes = MIB, "One message from a WebSocket client; a longer one closes the connection with code 1009.";
    list_page_max = 500, "Entries in one page of a list, or of a search, that `limit` may ask for; more is 400.";
    long_poll_max_ms = 3_600_000, "The longest time that `waitMs` may ask a turn or a request for a decision to be waited for; more is 400.";

    // acp
    acp_servers_max = 512, "ACP servers that exist at once, exited ones included; one more is 409.";
    acp_body_max_bytes = 64 * MIB, "One ACP envelope from a client; more is 413.";
    acp_line_max_bytes = 64 * MIB, "One line from an agent; a longer one is dropped and reported as _adapter/invalid_stdout, and a request it answered fails.";
    acp_raw_shown_max_bytes = 4 * KIB, "How much of an unreadable line _adapter/invalid_stdout shows.";
    acp_mailbox_max_messages = 256, "Commands that wait for one ACP server's owner; senders wait.";
    acp_pending_max_requests = 1024, "Requests in flight towards one agent; one more is answered with a JSON-RPC error.";
    acp_stdin_queue_max_bytes = 128 * MIB, "Bytes that wait for an agent that doesn't read; more is answered with a JSON-RPC error.";
    acp_sessions_max = 1024, "Sessions per ACP server that are remembered for restoring; the one that was prompted longest ago is forgotten.";
    acp_post_keepalive_ms = 10_000, "How long a POST to an agent, a run or a wait stays in silence before it sends headers and then white space, so that no proxy or client cuts the turn.";
    acp_answer_patience_ms = 50, "How long a POST's answer waits for event readers that keep up to get the same events first.";
    acp_restore_timeout_ms = 60_000, "Time a new agent process has for initialize and session/load when a server is restored.";
    acp_exit_drain_ms = 500, "After an agent's exit, how long its stdout is still read when a grandchild keeps the pipe open.";
    acp_connections_max = 1024, "Connections of ACP's remote transport (/acp) at once; one more is 503.";
    acp_connection_idle_ms = 300_000, "How long such a connection is kept while no stream of it is open and nothing is sent.";
    acp_connection_sessions_max = 256, "Sessions that one such connection follows; one more is 503.";
    acp_connection_early_max_messages = 64, "Messages that wait in a WebSocket of /acp until initialize is answered, with no more bytes than one envelope may have; then it is closed with code 1008.";
    acp_load_patience_ms = 10_000, "How long the answer to session/load waits until the client has read the session's history.";
    agent_stop_grace_ms = 1_000, "From closing stdin and TERM to KILL for the agent's whole process tree.";
    shutdown_deadline_ms = 4_000, "From SIGTERM or SIGINT to the server's exit; what is left then is killed.";
    stderr_tail_max_lines = 16, "Lines of an agent's stderr kept for error reports.";
    stderr_line_max_bytes = 4 * KIB, "Length of such a line; the rest of it is dropped.";

    // sessions
    turn_queue_max = 100, "Turns that wait in one session; one more is 503.";
    turn_cancel_grace_ms = 15_000, "Time for an agent to end a turn that was interrupted; then the turn is given up, and the agent ended when nothing else goes on in its process.";
    session_call_timeout_ms = 120_000, "The longest wait for an agent's answer to what `/v1/sessions` asks of it beside prompts (initialize, session/new, settings, steering, close); then the call fails.";
    session_silent_ms = 60_000, "A turn without a word from its agent for so long makes its session `silent`.";
    session_agent_idle_ms = 1_800_000, "An agent whose sessions are all idle for so long is stopped until the next message. Only agents of `/v1/sessions` whose raw events nobody reads.";
    session_roots_max = 16, "Directories in a session's `roots`; more is 400. Each call on files in its name opens them all.";
    session_closed_max = 10_000, "Closed sessions that are kept; the ones changed longest ago are deleted.";
    session_closed_max_age_ms = 2_592_000_000, "Closed sessions that were not changed for so long (30 days) are deleted.";
    session_open_items_max = 256, "Tool calls and spans that go on at once in one session; beyond, the oldest is ended.";
    session_params_max_bytes = 256 * KIB, "Params of initialize, session/new, settings and the like that are remembered for restoring; longer ones are not.";
    session_steered_keys_max = 64, "Idempotency keys of messages that joined a turn, in one session; the oldest is forgotten.";
    item_text_max_bytes = MIB, "Joined text that `item.completed` and a snapshot repeat of one message; its deltas have all of it.";
    item_tool_call_max_bytes = MIB, "A tool call with everything its updates brought, as `item.completed` repeats it.";
    item_delta_max_bytes = 256 * KIB, "Text in one `item.delta`.";
    item_diff_max_bytes = 8 * KIB, "A diff in the parts of a tool call's item, which is for reading; a longer one is cut (truncated), and `toolCall` has the whole texts.";
    transcript_max_bytes = 64 * KIB, "What a fresh agent session is told of what was said before, when the agent could not restore it.";
    snapshot_items_max = 2000, "Items in a snapshot.";
    attachment_max_bytes = 256 * MIB, "One uploaded attachment.";
    attachments_max = 256, "Attachments of one session; one more is 413.";

    // sessions: requests for a decision
    requests_pending_max = 1024, "Requests for a decision that wait at once over all sessions; one more is denied at once.";
    request_params_max_bytes = 256 * KIB, "Params of such a request that its row and events show; longer ones are only in the raw ACP stream.";
    request_answer_max_bytes = 64 * KIB, "Answer to such a request that its row and events show; longer ones are only in the raw ACP stream.";
    permission_deadline_ms = 24 * 3_600_000, "Time for somebody to decide a permission; then it is denied. A rule may set another.";
    elicitation_deadline_ms = 24 * 3_600_000, "Time for somebody to answer an elicitation or another question; then it is declined.";
    permission_rules_max = 500, "Rules of the permission policy, and decisions that are remembered: as many each. A longer policy is refused; the oldest decision is forgotten.";
    permission_rule_max_bytes = 16 * KIB, "One rule as JSON; a longer one is refused, and a decision that would need it isn't remembered.";

    // desktop
    desktop_call_timeout_ms = 5_000, "Time for the X server to do one thing; then the call fails, and the desktop is busy.";
    desktop_queue_max = 256, "Calls that wait for the X connection at once; one more is 409.";
    desktop_encodings_max = 4, "Pictures that are scaled and encoded at once, each with some copies of the screen; one more waits.";
    desktop_restarts_max = 5, "Times that Xvfb, openbox or D-Bus is started again within a minute; then the desktop has failed.";
    desktop_clipboard_max_bytes = 64 * MIB, "Content of a selection that is set or read; more is refused.";
    desktop_actions_max = 100, "Actions in one POST /v1/desktop/actions; more is 400.";
    desktop_displays_max = 8, "Displays that one screen is divided into; more is 400.";
    desktop_backdrop_max_bytes = 32 * MIB, "File of a picture for the desktop's backdrop; a longer one is 400.";
    desktop_backdrop_max_pixels = 40_000_000, "Pixels of such a picture, 4 bytes each while it is prepared; more is 400.";
    desktop_lease_ttl_max_ms = 3_600_000, "The longest time that a lease of the desktop may be taken or renewed for; more is 400.";
    desktop_viewers_max = 16, "Viewers of the desktop's stream at once; one more is 503.";
    desktop_viewer_connect_timeout_ms = 30_000, "Time for a viewer's WebRTC connection to come about; then it is closed, and the viewer told.";
    desktop_viewer_silent_timeout_ms = 10_000, "A WebRTC connection that nothing was heard of for so long is closed, and the viewer told.";

    // language servers
    lsp_manifests_max = 64, "Manifests of language servers that users add; further files are not read.";
    lsp_manifest_max_bytes = 64 * KIB, "One such manifest; a larger one is not read.";
    lsp_servers_max = 16, "Language servers at once; one more stops the one unused for longest, or is 503.";
    lsp_message_max_bytes = 32 * MIB, "One message of a language server; a longer one ends the server.";
    lsp_outgoing_max_bytes = 16 * MIB, "What a language server has not read yet; a request beyond is 503, and one that can not be told of a text any more is started anew.";
    lsp_requests_max = 256, "Requests of one language server under way; one more is 503.";
    lsp_request_timeout_ms = 30_000, "Time for a language server to answer; then it is told to stop, and the request is 504.";
    lsp_start_timeout_ms = 60_000, "Time for a language server to start; then it is ended.";
    lsp_idle_stop_ms = 600_000, "A language server that nobody asks for so long is stopped; it starts again with the next request.";
    lsp_files_max = 2000, "Files of a language server whose diagnostics are kept; those told of longest ago go.";
    lsp_open_files_max = 256, "Files that a language server has open; the one unused for longest is closed.";
    lsp_diagnostics_max = 1000, "Diagnostics of one file and server; more are counted only.";
    lsp_folder_files_max = 200, "Files of a folder whose diagnostics are asked for at once; more are said to be left out.";
    lsp_file_max_bytes = 4 * MIB, "A file that is given to a language server; a larger one is 413.";
    lsp_log_max_lines = 500, "Lines of a language server's log that are kept.";
    lsp_log_line_max_bytes = 4 * KIB, "One such line; it is cut.";
    lsp_memory_max_bytes = 4 * GIB, "Memory of a language server with all that it starts; above, it is ended, and that is said.";
    lsp_install_timeout_ms = 600_000, "Time for the installation of a language server.";
    desktop_ticket_ttl_max_ms = 3_600_000, "The longest time that a ticket for the desktop's stream may be good for; more is 400.";
    desktop_accessibility_timeout_ms = 15_000, "Time for one look at the accessibility tree, without finding the bus; then what there is comes (cut: timeout).";
    desktop_accessibility_silence_ms = 2_000, "Time for a program to answer one question about its tree; then it is given up, and named (silent).";
    desktop_accessibility_answer_max_bytes = 8 * MIB, "Names and texts of the nodes of one answer; further nodes are left out (cut: maxBytes).";
    desktop_recording_max_bytes = 4 * GIB, "File of one recording; then it ends (size). More can't be asked for.";
    desktop_recording_max_ms = 4 * 3_600_000, "Video of one recording, without pauses; then it ends (duration). More can't be asked for.";
    desktop_recordings_max = 100, "Recordings that are kept; one more is 409 until some are deleted.";

    // fs
    fs_hash_cache_max = 16_384, "Hashes of files that are remembered; the oldest are forgotten, and such files are read again.";
    fs_transfers_max = 256, "Files and directories that are transferred in pieces at once, up or down; one more is 503.";
    fs_walk_depth_max = 100, "Levels that a listing or a search of a tree goes down, each a directory held open; what is deeper is left out.";
    fs_walk_page_max_entries = 100_000, "Entries on one page of a tree, and names that one search for names gives; the rest is on the next page, or truncated.";
    fs_walk_timeout_ms = 30_000, "Time for one page of a tree, or one search for names; then it ends with where to go on, or truncated.";
    fs_ignore_file_max_bytes = 256 * KIB, "Of a file with ignore rules so much is read.";
    fs_searches_max = 4, "Searches through contents, and replacements, under way at once; one more waits.";
    fs_search_timeout_ms = 60_000, "Time for one search through contents; then it ends, truncated.";
    fs_search_matches_max = 100_000, "Lines that one search finds; then it ends, truncated.";
    fs_search_answer_max_bytes = 8 * MIB, "A search's answer that isn't streamed, and a replacement's plan; then it ends, truncated.";
    fs_search_line_max_bytes = 16 * KIB, "Of a line that is shown so much, around its first match.";
    fs_search_heap_max_bytes = 32 * MIB, "Memory for one line, or for one file in a search over lines; a file that needs more is skipped and told.";
    fs_replace_files_max = 2_000, "Files that one replacement changes; then it ends, truncated.";
    fs_edit_max_bytes = MIB, "A file that is edited (`/v1/fs/edit`), or compared for a diff; a longer one is 413, or has no diff.";
    fs_diff_max_bytes = 100_000, "A diff that is kept and shown, and a merged content; a longer diff is cut (diffTruncated).";
    fs_edits_max = 50_000, "Edits in the history of files; the oldest beyond that go.";
    fs_edits_max_age_ms = 30 * 24 * 3_600_000, "How long edits are kept, and what was replaced.";
    fs_preimage_max_bytes = 4 * MIB, "A file that is kept when it is replaced or removed; a larger one can't be restored (restorable).";
    fs_preimage_tree_max_bytes = 16 * MIB, "The same for all files of a directory that is removed.";
    fs_preimage_tree_max_names = 1000, "The same, in names.";
    fs_preimages_max_bytes = 256 * MIB, "All contents that are kept so; the ones replaced longest ago go, and their edits can't be taken back.";
    fs_turn_files_max = 1000, "Files of one turn whose changes only a watch saw; more are not noted, which the log says.";
    fs_baselines_max = 16, "Directories with copies of what was there when a turn began; beyond, the one that was worked in longest ago has none any more, unless somebody works there.";
    fs_baseline_max_files = 5_000, "Files and directories in such a directory; of a larger one some are not known, and what a shell did to them can't be taken back.";
    fs_baseline_max_bytes = 64 * MIB, "Copies of one such directory, compressed; what is beyond isn't known.";
    fs_baselines_max_bytes = 256 * MIB, "The same of all of them together: the length of a file in the data directory that has no name.";
    fs_baseline_idle_ms = 600_000, "How long copies are kept after the last turn in their directory.";
    fs_rollback_max_edits = 1000, "Edits that one rollback takes back; more is 413.";
    fs_seen_max = 20_000, "Files that sessions saw, over all sessions, with what they had then; the ones seen longest ago are forgotten.";
    fs_conflict_edits_max = 200, "Latest edits of a file that are looked at for conflicts between sessions.";
    fs_conflict_max_age_ms = 24 * 3_600_000, "How long an edit counts for such conflicts.";
    fs_leases_max = 1000, "Leases of files at once; one more is 413.";
    fs_lease_max_ms = 24 * 3_600_000, "The longest time that a lease may ask for; more is 400.";
    fs_batch_operations_max = 1000, "Operations of one batch.";
    fs_batch_read_max_bytes = 10 * MIB, "Contents that one batch reads into its answer.";
    fs_uploads_max = 256, "Uploads in pieces under way at once.";
    fs_upload_expiry_ms = 24 * 3_600_000, "Time after its last piece that an upload waits for the next one; then what came of it is removed.";
    fs_archive_max_bytes = 1024 * GIB, "Bytes that one uploaded archive holds once unpacked.";
    fs_archive_entries_max = 2_000_000, "Entries of one uploaded archive; each costs 8 bytes of memory until its end.";
    fs_archive_depth_max = 128, "Directories above one another in an archive, up or down; as many are held open at once.";
    fs_archive_ratio_max = 250, "Times that an uploaded archive may grow when its compression is taken off; then it is 413.";
    fs_archive_ratio_free_bytes = 64 * MIB, "So large it may become in any case.";
    fs_archive_header_max_bytes = MIB, "Headers of one entry in an uploaded archive, with its long names and PAX records.";
    fs_archive_zip_entries_max = 1_000_000, "Entries of one zip download; each costs some 200 bytes of memory until its end. A longer one is cut, and a tar isn't bounded.";
    fs_archive_pending_max_bytes = 64 * MIB, "Names of directories and links of one uploaded archive, which wait in memory for its end.";
    fs_watch_trees_max = 64, "Directories that are watched at once, each with all that is below it; one more is 503. Those who watch the same share one.";
    fs_watch_directories_max = 100_000, "Directories with an inotify watch at once, over all that is watched; beyond, a tree is polled. The kernel has a bound of its own (fs.inotify.max_user_watches), which has the same effect.";
    fs_watch_entries_max = 1_000_000, "Files and directories that are known of one watched tree; a larger one is 413, and of one that grows beyond it the rest isn't watched (too_many_entries).";
    fs_watch_queue_max_bytes = 16 * MIB, "What the kernel said of watched files and nobody has looked at yet; beyond, it waits in the kernel (fs.inotify.max_queued_events), whose overflow is a resync.";
    fs_watch_pending_max_paths = 50_000, "Changed paths of one tree that are gathered; beyond, they are told at once.";
    fs_watch_window_ms = 75, "How long changes of files are gathered before they are told.";
    fs_watch_settle_ms = 20, "Where only contents of known files changed, the silence after which that is told before the window is over.";
    fs_watch_event_max_changes = 1000, "Changes in one event `fs.changed`; the rest is in the next.";
    fs_watch_retry_ms = 60_000, "How often a tree that is polled because watches ran out is tried to be watched again.";
    fs_watch_linger_ms = 60_000, "How long a watched tree that nobody reads any more is kept, so that whoever comes back misses nothing.";
    fs_watch_poll_min_ms = 1_000, "How often a tree is looked at that can't be watched by inotify, at first and after a change; looking takes a twentieth of the time at most.";
    fs_watch_poll_max_ms = 10_000, "The same after a long time without a change: each pause is twice the one before.";

    // git
    git_calls_max = 32, "Calls on repositories that run at once; one more is 503.";
    git_timeout_ms = 30_000, "Time for each command of git that a reading call needs; then it is stopped and the call fails.";
    git_worktree_timeout_ms = 300_000, "The same for adding and removing a worktree.";
    git_worktrees_max = 256, "Worktrees that were made for sessions at once, those that are kept for their work with them; one more is 503.";
    git_worktree_grace_ms = 3_600_000, "How long after its session was closed or deleted a worktree that was made for it stays; then it is removed, if there is no work in it.";
    git_output_max_bytes = 8 * MIB, "What git tells of a status, a log, or the files of a diff; the rest is left out (truncated), or on the next page.";
    git_patch_max_bytes = 4 * MIB, "Text of a diff; the rest is left out (truncated).";
    git_entries_max = 20_000, "Entries of a status, files of a diff; the rest is left out (truncated).";
    git_paths_max = 256, "Paths to which a diff or a log may be narrowed; more is 400.";
    git_drivers_max = 64, "Filters and hooks in a repository's configuration, each of which is switched off by name; a repository with more is refused.";

    // store
    store_queue_max_bytes = 4 * MIB, "Events that wait for the disk; agents aren't read meanwhile.";
    store_batch_max_events = 4096, "Events in one transaction (group commit).";
    store_check_ms = 500, "At a start after the machine went down, the time for the database's check; what is left of it goes on beside.";
    store_check_killed_ms = 25, "The same when only the server was killed: what it wrote is then whole.";
    store_salvage_ms = 10_000, "Time to copy what can be read of a damaged database into a new one; the rest is only in the file that is set aside.";
    store_aside_max = 4, "Databases that are kept beside because they were damaged, and as many that were replaced by a restore: the first and the newest.";
    log_ring_max_events = 1024, "Latest events of a stream kept in memory for its readers; older ones are read from the file.";
    log_ring_max_bytes = MIB, "The same, in bytes.";
    log_ring_unwatched_max_bytes = 4 * KIB, "The same, of a stream that nobody follows.";
    log_page_max_events = 512, "Events read from the file at a time for one reader.";
    events_page_max_bytes = 4 * MIB, "Events in one page of the whole log; the rest is on the next page.";
    log_stream_max_events = 1_000_000, "Events kept per stream; older ones go, and a reader gets a gap event.";
    log_stream_max_bytes = GIB, "Payload bytes kept per stream; older events go, and a reader gets a gap event.";
    log_deleted_streams_max = 2000, "Streams of deleted ACP servers that are kept (two per server); the oldest beyond that are removed.";

    // traces
    spans_max = 200_000, "Spans that are kept; the oldest beyond that go, looked for once in a thousand new ones.";
    trace_spans_max = 5_000, "Spans of one trace, or of one page of a timeline, that are shown; more is said (truncated, next).";
    otlp_queue_max_spans = 4_096, "Ended spans that wait for the collector; further ones are dropped and counted.";
    otlp_flush_ms = 500, "At a stop, the time for the last spans to be taken by the collector.";
    stats_tools_max = 500, "Tools in statistics, the most used first; more is said (truncated).";

    // agents
    agent_install_timeout_ms = 900_000, "Time for one agent's installation; then it is stopped.";
    agent_install_output_max_bytes = 64 * KIB, "Tail of an installer's output kept for its error message.";
    agent_install_events_max = 2_000, "Lines of an installer's output that are reported as its progress; further ones only end up in the tail.";
    agent_version_timeout_ms = 5_000, "Time for an agent's --version; then the version is left out.";
    credential_file_max_bytes = 16 * MIB, "Size of a file in which credentials are looked for; a larger one is skipped.";
    agent_manifests_max = 256, "Agent manifests that are read; further files are reported and ignored.";
    agent_manifest_max_bytes = 256 * KIB, "Size of one manifest; a larger one is reported and ignored.";

    // processes
    processes_max = 1024, "Children at once over all owners; one more is refused.";
    processes_concurrent_max = 64, "Managed processes that run at once, until a client changes it; one more is 409.";
    processes_lingering_max = 128, "Ended processes and runs whose output is read on because something in the background holds it; beyond that it is closed.";
    processes_finished_max = 10_000, "Finished processes that are kept with their logs; beyond that the oldest go.";
    processes_finished_max_age_ms = 7 * 24 * 3_600_000, "How long a finished process is kept; looked at when another one finishes.";
    process_logs_max_bytes = 2 * GIB, "Logs of all finished processes on disk; beyond that the oldest processes go.";
    process_log_max_bytes = 10 * MIB, "Output of one process kept on disk, until a client changes it: the first eighth and the latest bytes; readers get a gap with counts.";
    process_input_max_bytes = 64 * KIB, "Input in one request or terminal frame, until a client changes it; more is 413.";
    process_input_queue_max_bytes = MIB, "Input that waits for a process that doesn't read; more is 409.";
    process_mailbox_max_messages = 64, "Commands that wait for one process's owner; senders wait.";
    process_exit_drain_ms = 300, "After an exit, how long output is still waited for when something in the background holds the pipes.";
    process_stop_grace_ms = 1_500, "From TERM to KILL for the whole tree of a process that is stopped (or waitMs, when that is longer).";
    process_shutdown_grace_ms = 1_000, "The same when the server stops.";
    process_restart_max_delay_ms = 30_000, "Longest pause before a restart; the first is 100 ms and each doubles it.";
    process_wait_timeout_default_ms = 30_000, "How long a wait waits when it doesn't say.";
    process_wait_timeout_max_ms = 3_600_000, "The longest time that a wait may ask for.";
    ports_poll_ms = 2_000, "How often listening ports are looked at while any process runs; somebody who asks gets them at once.";
    search_line_max_bytes = 2 * KIB, "Length of a line that a search shows; what is behind is searched, too.";
    search_answer_max_bytes = 2 * MIB, "Lines that one search shows in all; further matches are only counted (truncated).";
    run_keys_max = 256, "Answers of runs kept for their idempotency keys; the oldest go, but none that still runs.";
    run_keys_max_bytes = 16 * MIB, "The same, in bytes of output.";
    run_timeout_default_ms = 30_000, "Time for a run that asks for none, until a client changes it.";
    run_timeout_max_ms = 300_000, "The longest time for a run, until a client changes it.";
    run_output_max_bytes = MIB, "Each stream of a run that its answer holds, until a client changes it; the rest is counted.";
    terminal_scrollback_max_lines = 1_000, "Lines above a terminal's screen that are kept in memory; older ones are in its log.";
    terminal_viewers_max = 64, "Clients attached to one terminal; one more is 503.";
    terminal_viewer_queue_max_bytes = MIB, "Output that waits for one attached client; then the terminal pauses.";
    terminal_viewer_patience_ms = 250, "How long a terminal pauses for a client that doesn't read; then that client gets the screen instead of what it missed.";

    // keeper
    keeper_crashes_max = 5, "Servers in a row that may die soon after their start; the next one is started in safe mode, where it only says why.";
    keeper_steady_ms = 10_000, "A server that ran so long before it died starts that count anew.";
    safe_mode_retry_ms = 60_000, "How long a server stays in safe mode before a normal start is tried again.";
    crash_reports_max = 20, "Crash reports that are kept; the oldest go.";
    crash_text_max_bytes = 16 * KIB, "Of a panic's message, and of its backtrace, so much is kept.";

    // workspace
    directory_config_max_bytes = MIB, "Size of a directory's mcp.json or skills.json; a larger one is not read, and not written.";
    directory_config_entries_max = 256, "Entries in such a file; one more is 409.";
    directory_config_name_max_bytes = 256, "Length of such an entry's name; a longer one is 400.";
    mcp_checks_max = 8, "MCP servers of one session that are checked at the same time; further ones wait.";
    mcp_check_timeout_ms = 10_000, "Time for an MCP server to list its tools, unless its configuration has a timeout; then it isn't ready.";
    mcp_check_timeout_max_ms = 120_000, "The longest such time that a configuration may ask for.";
    mcp_message_max_bytes = 4 * MIB, "One message of an MCP server that is checked; with a longer one it isn't ready.";
    skills_max = 20, "Skills of a directory; further ones are named and not copied.";
    skill_files_max = 256, "Files and folders of one skill; a skill with more is not copied.";
    skill_file_max_bytes = 256 * KIB, "One file of a skill; a skill with a larger one is not copied.";
    skills_total_max_bytes = MIB, "All files of a directory's skills; a skill beyond that is not copied.";
    skills_git_timeout_ms = 60_000, "Time to get a repository with skills; then its last copy is used, if there is one.";
    skills_git_fresh_ms = 600_000, "How long a copy of such a repository is used before it is asked for again.";
    skills_git_copies_max = 32, "Copies of such repositories that are kept; the oldest go.";
}

fn read_bound(env: &Env, name: &str, default: u64) -> Result<u64, ConfigError> {
    let variable = format!("SANDBOXD_{}", name.to_ascii_uppercase());
    match env.get(&variable) {
        None => Ok(default),
        Some(value) => value
            .parse()
            .ok()
            .filter(|number| *number >= 1)
            .ok_or_else(|| ConfigError::BadBound { variable, value: value.to_owned() }),
    }
}

/// Bounds that count things in memory are used as `usize`.
pub fn as_usize(bound: u64) -> usize {
    usize::try_from(bound).unwrap_or(usize::MAX)
}

/// Bounds in milliseconds as a duration.
pub fn as_duration(bound_ms: u64) -> std::time::Duration {
    std::time::Duration::from_millis(bound_ms)
}
