//! A task that ends with its owner: one that tokio spawns would go on when the command has failed.

use tokio::task::JoinHandle;

use crate::failure::Failure;

pub struct Task<T>(JoinHandle<Result<T, Failure>>);

impl<T: Send + 'static> Task<T> {
    pub fn new(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub async fn done(mut self) -> Result<T, Failure> {
        let joined = (&mut self.0).await;
        joined.unwrap_or_else(|error| Err(Failure::new("Task", error.to_string())))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
