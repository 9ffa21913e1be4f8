//! Header maps that are used again.
//!
//! A map is two allocations, the larger of them over a kilobyte. hyper puts the map of an answer to
//! use for the connection's next request; the map of a request that was answered comes here, and
//! goes on to the next answer. So a connection that goes on allocates none.

use std::cell::RefCell;

use http::HeaderMap;

/// Maps a thread keeps.
const MAPS_MAX: usize = 32;
/// Fields a map that is kept has room for. One request with very many must not take memory for ever.
const ROOM_MAX: usize = 24;

thread_local! {
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// An empty map with room for so many fields.
pub(super) fn take(room: usize) -> HeaderMap {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    match spare {
        Some(mut map) => {
            map.reserve(room);
            map
        }
        None => HeaderMap::with_capacity(room),
    }
}

/// Takes a map whose fields nobody needs any more.
pub(crate) fn give_back(mut map: HeaderMap) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAPS_MAX && (1..=ROOM_MAX).contains(&map.capacity()) {
            map.clear();
            spare.push(map);
        }
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn spare() -> usize {
        SPARE.with_borrow(Vec::len)
    }

    /// Other tests may have run on this thread.
    fn forget() {
        SPARE.take();
    }

    #[test]
    fn a_map_that_comes_back_is_given_out_empty_and_large_enough() {
        forget();
        let mut map = take(3);
        let room = map.capacity();
        map.insert("a", HeaderValue::from_static("1"));
        map.append("a", HeaderValue::from_static("2"));
        give_back(map);
        assert_eq!(spare(), 1);
        let again = take(room + 1);
        assert_eq!(spare(), 0);
        assert!(again.is_empty() && again.capacity() > room);
    }

    #[test]
    fn few_maps_are_kept_and_no_large_ones() {
        forget();
        give_back(HeaderMap::new());
        give_back(HeaderMap::with_capacity(ROOM_MAX + 1));
        assert_eq!(spare(), 0, "one of no use, one too large");
        for _ in 0..=MAPS_MAX {
            give_back(HeaderMap::with_capacity(ROOM_MAX));
        }
        assert_eq!(spare(), MAPS_MAX);
    }
}
