//! Bytes as the values that a target without a text of its own is made of.

pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As many as there are.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Zeros where the input ends.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    pub fn u128(&mut self) -> u128 {
        u128::from_be_bytes(self.array())
    }

    /// A safetensors file: as it stands after a zero byte, else a header up to the next zero byte, which is given its
    /// right length, and what follows it.
    pub fn safetensors(&mut self) -> Vec<u8> {
        if self.u8() == 0 {
            return self.0.to_vec();
        }
        let header = self.piece();
        [&(header.len() as u64).to_le_bytes(), header, self.0].concat()
    }

    /// Up to the next zero byte.
    pub fn piece(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        let piece = self.take(end);
        self.take(1);
        piece
    }

    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.piece()).into_owned()
    }
}
