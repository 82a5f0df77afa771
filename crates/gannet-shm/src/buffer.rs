//! Private buffers that shared bytes are copied into, without zeroing them first.

use std::mem::MaybeUninit;

use bytes::BytesMut;

use crate::memory::Memory;

/// A growing buffer that payload can be appended to: `Vec<u8>` or [`BytesMut`].
pub trait Append: sealed::Sealed {
    /// Appends `first` and then `second`, each an offset and a length within `memory`.
    #[doc(hidden)]
    fn append_from<M: Memory>(&mut self, memory: &M, first: (usize, usize), second: (usize, usize));
}

impl Append for Vec<u8> {
    #[inline]
    fn append_from<M: Memory>(
        &mut self,
        memory: &M,
        first: (usize, usize),
        second: (usize, usize),
    ) {
        let total = first.1 + second.1;
        self.reserve(total);
        fill(
            memory,
            &mut self.spare_capacity_mut()[..total],
            first,
            second,
        );
        // SAFETY: `reserve` made room for `total` more bytes and `fill` has written them all.
        unsafe { self.set_len(self.len() + total) };
    }
}

impl Append for BytesMut {
    #[inline]
    fn append_from<M: Memory>(
        &mut self,
        memory: &M,
        first: (usize, usize),
        second: (usize, usize),
    ) {
        let total = first.1 + second.1;
        self.reserve(total);
        fill(
            memory,
            &mut self.spare_capacity_mut()[..total],
            first,
            second,
        );
        // SAFETY: `reserve` made room for `total` more bytes and `fill` has written them all.
        unsafe { self.set_len(self.len() + total) };
    }
}

/// Fills `into`, whose length is that of both pieces together.
#[inline]
pub(crate) fn fill<M: Memory>(
    memory: &M,
    into: &mut [MaybeUninit<u8>],
    first: (usize, usize),
    second: (usize, usize),
) {
    let (head, tail) = into.split_at_mut(first.1);
    memory.copy_out(first.0, head);
    if second.1 != 0 {
        memory.copy_out(second.0, &mut tail[..second.1]);
    }
}

/// The same bytes, seen as a destination for [`Memory::copy_out`].
#[inline]
pub(crate) fn as_uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let len = bytes.len();
    // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and the crate hands the result only to
    // `Memory::copy_out`, which must write initialised bytes to every element.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), len) }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for Vec<u8> {}
    impl Sealed for bytes::BytesMut {}
}
