//! What can go wrong, and the exit code that tells the operator whether a
//! retry can help (sysexits: 64 and 65 are final, 75 is an interruption).

use std::path::{Path, PathBuf};

#[cfg(feature = "torch")]
use tch::TchError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task asks for something impossible; the message says what to change.
    #[error("{0}")]
    Usage(String),
    /// The input data cannot be used; the message names row and column.
    #[error("{0}")]
    Data(String),
    /// The machine lacks what the command line demands.
    #[error("{0}")]
    Unavailable(String),
    /// SIGTERM arrived; what was done so far is in the checkpoint.
    #[error("{0}")]
    Interrupted(String),
    /// A replay came to another state than the trace says.
    #[error("{0}")]
    Differs(String),
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("libtorch: {0}")]
    Torch(String),
}

#[cfg(feature = "torch")]
impl From<TchError> for Error {
    fn from(error: TchError) -> Self {
        let line = first_line(&error);
        // The same run would ask for the same memory again, so a retry cannot help.
        if line.contains("out of memory") || line.contains("can't allocate memory") {
            return Self::Usage(format!(
                "too little memory: {line}; lower batchSize or the model's size, or raise resources.gpu.memory (on \
                 the CPU resources.memory)"
            ));
        }
        Self::Torch(line)
    }
}

impl Error {
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Differs(_) => 1,
            Self::Usage(_) => 64,
            Self::Data(_) => 65,
            Self::Unavailable(_) => 69,
            Self::Torch(_) => 70,
            Self::Io { .. } => 74,
            Self::Interrupted(_) => 75,
        }
    }
}

/// libtorch appends a C++ stack trace that helps nobody who reads a pod's log.
#[cfg(feature = "torch")]
fn first_line(error: &TchError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

pub type Result<T> = std::result::Result<T, Error>;

#[cfg(all(test, feature = "torch"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_runs_out_is_not_worth_a_retry_and_other_failures_may_be() {
        let torch = |text: &str| Error::from(TchError::Torch(text.into()));
        let error = torch("CUDA out of memory. Tried to allocate 2.00 GiB.\nException raised from malloc");
        assert_eq!(error.exit_code(), 64);
        assert!(error.to_string().contains("resources.gpu.memory") && !error.to_string().contains("Exception"));
        assert_eq!(torch("CUDA error: an illegal memory access was encountered\nat ...").exit_code(), 70);
    }
}
