//! The kernel's packet as a [`Frame`].

use core::{ffi::c_int, ptr::read_volatile};

use aya_ebpf::{helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_ebpf::frame::{Frame, OFFSET_MAX, Word};

/// An XDP context, each access to which is checked against `data_end` in the form that the
/// verifier tracks: packet pointer plus bounded offset, compared before the access.
pub(crate) struct XdpFrame<'a> {
    context: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context }
    }

    /// Pointer to `N` readable and writable words at offset `at`, not aligned.
    #[inline(always)]
    fn words<T: Word, const N: usize>(&self, at: usize) -> Option<*mut [T; N]> {
        if at > OFFSET_MAX {
            return None;
        }
        let start = self.context.data() + at;
        let end = start + N * size_of::<T>();
        (end <= self.context.data_end()).then_some(start as *mut [T; N])
    }
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        // Volatile, so that the compiler cannot tell that this is the `data_end` of `words`. It
        // would else see that a length check covers an access and remove the access's own
        // comparison, which is the only one that the verifier understands.
        // SAFETY: the context is valid for the whole run of the program.
        let end = unsafe { read_volatile(&raw const (*self.context.ctx).data_end) };
        end as usize - self.context.data()
    }

    #[inline(always)]
    fn load<T: Word, const N: usize>(&self, at: usize) -> Option<[T; N]> {
        // SAFETY: `words` compared the words against the end of the packet, and any bytes are words.
        self.words(at)
            .map(|words| unsafe { words.read_unaligned() })
    }

    #[inline(always)]
    fn store<T: Word, const N: usize>(&mut self, at: usize, words: [T; N]) -> Option<()> {
        let start = self.words::<T, N>(at)?.cast::<T>();
        for (index, word) in words.into_iter().enumerate() {
            // Word by word: as a whole, the compiler calls `memmove` for it, byte by byte.
            // SAFETY: as in `load`; the program is the only owner of the packet.
            unsafe { start.add(index).write_unaligned(word) };
        }
        Some(())
    }

    #[inline(always)]
    fn grow<const N: usize>(&mut self) -> Option<()> {
        // SAFETY: the context is the program's own; all packet pointers are derived anew after.
        let result = unsafe { bpf_xdp_adjust_head(self.context.ctx, -(N as c_int)) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn shrink<const N: usize>(&mut self) -> Option<()> {
        // SAFETY: as in `grow`.
        let result = unsafe { bpf_xdp_adjust_head(self.context.ctx, N as c_int) };
        (result == 0).then_some(())
    }
}
