//! A captured request, a dump or a HAR file, for `explain`.

use hookstream::cli::capture::Capture;

/// A text in the capture that no error may repeat.
const MARK: &str = "QXZQ";

/// A capture becomes a request that is not larger and whose path has no query, or a one-line error that repeats none of it.
pub fn run(data: &[u8]) {
    for entry in [None, Some(1), Some(2)] {
        match Capture::parse(data, entry) {
            Ok(capture) => {
                assert!(capture.body.len() <= data.len());
                assert!(!capture.uri.path().contains('?'), "{}", capture.uri);
            }
            Err(error) => {
                let text = format!("{error:#}");
                assert!(!text.is_empty() && !text.contains(MARK) && !text.contains('\n'), "{text}");
            }
        }
    }
}
