//! What a route does with a request: send it to a service.

/// What a route does with the requests that take it.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends them to an instance of a service.
    Forward(Split),
}

/// The services a route sends requests to.
#[derive(Clone, Debug)]
pub struct Split {
    /// In order of name, at least one.
    targets: Box<[Target]>,
}

/// One of the services of a route.
#[derive(Clone, Debug)]
pub struct Target {
    /// Index into `Config::services`.
    pub service: usize,
}

impl Split {
    /// All requests to one service.
    pub fn to(service: usize) -> Self {
        Self {
            targets: Box::new([Target { service }]),
        }
    }

    /// The services, in order of name.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The one that takes a request: an index into [`targets`](Self::targets).
    pub fn choose(&self) -> usize {
        0
    }
}
