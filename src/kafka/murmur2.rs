//! The hash by which the Java clients and hookstream's producer choose the partition of a key.

const MIX: u32 = 0x5bd1_e995;
const SEED: u32 = 0x9747_b28c;

/// The partition of `key` in a topic of `partitions`, as Java's default partitioner and librdkafka's
/// `murmur2_random` choose it. 0 if the topic has no partitions.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // Kafka clears the sign bit, which differs from the absolute value.
    let positive = (murmur2(key) & 0x7fff_ffff).cast_signed();
    positive.checked_rem(partitions).unwrap_or(0)
}

/// MurmurHash2, 32 bits, with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    // A record cannot have a key longer than 4 GiB; its length would wrap as in Java.
    let mut hash = SEED ^ data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(MIX);
        k ^= k >> 24;
        hash = hash.wrapping_mul(MIX) ^ k.wrapping_mul(MIX);
    }
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(MIX);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MIX);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `org.apache.kafka.common.utils.Utils.murmur2` of kafka-clients 4.3.1. The last column is
    /// the partition in a topic of six.
    const VECTORS: [(&[u8], i32, i32); 13] = [
        (b"", 275_646_681, 3),
        (b"a", -1_563_381_124, 4),
        (b"ab", 316_155_434, 2),
        (b"abc", 479_470_107, 3),
        (b"abcd", -1_323_649_548, 2),
        (b"21", -973_932_308, 0),
        (b"foobar", -790_332_482, 0),
        (b"a-little-bit-long-string", -985_981_536, 2),
        (b"evt_7f3d8a2c", 1_746_130_731, 3),
        (b"evt_0002", 157_920_605, 5),
        (b"sha256:8e91344d2f", 2_075_844_717, 3),
        ("ü日本😀".as_bytes(), -1_245_132_747, 5),
        (b"\xff\x80\x00\x01\xfe", -173_560_464, 2),
    ];

    #[test]
    fn a_key_has_the_partition_that_the_java_client_chooses() {
        for (key, hash, partition) in VECTORS {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
            assert_eq!(partition_of(key, 6), partition, "{key:?}");
        }
    }

    #[test]
    fn any_number_of_partitions_is_harmless() {
        assert_eq!(partition_of(b"evt_1", 1), 0);
        assert_eq!(partition_of(b"evt_1", 0), 0);
    }
}
