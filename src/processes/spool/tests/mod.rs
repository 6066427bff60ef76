//! A spool as a whole: on a real folder, or on a disk that fails on request.
