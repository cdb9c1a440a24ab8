//! What keeps the state in Kubernetes current. Nothing here signs a token, and no request waits for it longer than a moment.

pub mod agent;
pub mod credentials;
pub mod lease;
pub mod policies;
