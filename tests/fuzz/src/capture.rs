//! A request as somebody captured it, a dump or a HAR file, for `explain`.

use hookstream::cli::capture::Capture;

/// What no error may repeat.
const MARK: &str = "QXZQ";

/// A request no larger than its capture and without its query, or one sentence without a word of it.
pub fn run(data: &[u8]) {
    for entry in [None, Some(1), Some(2)] {
        match Capture::parse(data, entry) {
            Ok(capture) => {
                assert!(capture.body.len() <= data.len());
                assert!(!capture.path.contains('?'), "{}", capture.path);
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(!text.is_empty() && !text.contains(MARK) && !text.contains('\n'), "{text}");
            }
        }
    }
}
