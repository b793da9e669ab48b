use super::*;

/// How a conversation ends: the body and what was consumed, or the error.
type Outcome = Result<(Vec<u8>, usize, bool), BodyError>;

/// Feeds `bytes` in pieces of at most `piece` bytes, as a connection would.
fn fed(framing: BodyFraming, bytes_max: usize, bytes: &[u8], piece: usize) -> Outcome {
    let mut decoder = BodyDecoder::new(framing, bytes_max)?;
    let (mut body, mut consumed) = (Vec::new(), 0);
    loop {
        let end = bytes.len().min(consumed + piece);
        let progress = decoder.decode(&bytes[consumed..end], &mut body)?;
        consumed += progress.consumed;
        assert!(progress.done || consumed == end, "what belongs to the body is taken at once");
        if progress.done || consumed == bytes.len() {
            return Ok((body, consumed, progress.done));
        }
    }
}

fn check(framing: BodyFraming, bytes_max: usize, bytes: &[u8]) -> Outcome {
    let whole = fed(framing, bytes_max, bytes, usize::MAX / 2);
    for piece in [1, 2, 3, 7] {
        assert_eq!(fed(framing, bytes_max, bytes, piece), whole, "{:?}", String::from_utf8_lossy(bytes));
    }
    whole
}

fn chunked(bytes: &[u8]) -> Outcome {
    check(BodyFraming::Chunked, 64, bytes)
}

#[test]
fn no_body_takes_nothing() {
    for framing in [BodyFraming::None, BodyFraming::Length(0)] {
        assert_eq!(check(framing, 0, b"GET / HTTP/1.1\r\n"), Ok((vec![], 0, true)));
    }
}

#[test]
fn a_counted_body_stops_where_the_next_request_starts() {
    assert_eq!(check(BodyFraming::Length(5), 5, b"helloGET /"), Ok((b"hello".to_vec(), 5, true)));
    assert_eq!(check(BodyFraming::Length(5), 5, b"hel"), Ok((b"hel".to_vec(), 3, false)));
}

#[test]
fn a_length_over_the_bound_is_refused_before_its_bytes() {
    assert!(BodyDecoder::new(BodyFraming::Length(64), 64).is_ok());
    for len in [65, u64::MAX] {
        let refused = BodyDecoder::new(BodyFraming::Length(len), 64).map(|_| ());
        assert_eq!(refused, Err(BodyError::TooLarge { bytes_max: 64 }));
    }
}

#[test]
fn an_announced_length_reserves_nothing() {
    let mut body = Vec::new();
    let mut decoder = BodyDecoder::new(BodyFraming::Length(1 << 40), usize::MAX).unwrap();
    decoder.decode(b"hello", &mut body).unwrap();
    assert!(body.capacity() < 64);

    let mut body = Vec::new();
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, usize::MAX).unwrap();
    decoder.decode(b"ffffffffff\r\nhello", &mut body).unwrap();
    assert_eq!(body, b"hello");
    assert!(body.capacity() < 64);
}

#[test]
fn chunks_are_joined() {
    let rows: [(&[u8], &[u8]); 8] = [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", b"hello world"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5;name=value;q=\"a b\"\r\nhello\r\n0;last\r\n\r\n", b"hello"),
        (b"5 \t; name\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5\r\nhello\r\n0\r\nX-Sum: 12\r\nX-Empty:\r\n\r\n", b"hello"),
    ];
    for (bytes, body) in rows {
        assert_eq!(chunked(bytes), Ok((body.to_vec(), bytes.len(), true)), "{:?}", String::from_utf8_lossy(bytes));
        let with_next = [bytes, b"\r\nPOST /"].concat();
        assert_eq!(chunked(&with_next), Ok((body.to_vec(), bytes.len(), true)), "the next request is left alone");
        let (_, consumed, done) = chunked(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!((consumed, done), (bytes.len() - 1, false), "the last byte is awaited");
    }
}

#[test]
fn chunks_out_of_grammar_are_refused() {
    let rows: [&[u8]; 28] = [
        b"\r\n",
        b"\n",
        b";x\r\n",
        b" 5\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"-5\r\n",
        b"0x5\r\nhello\r\n",
        b"5h\r\n",
        b"5 \r\nhello\r\n",
        b"5 5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\rhello\r\n",
        b"5\r\rhello\r\n",
        b"00000000000000005\r\nhello\r\n",
        b"fffffffffffffffff\r\n",
        b"5;x\ny\r\nhello\r\n",
        b"5;x\0\r\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r0",
        b"5\r\nhello0\r\n\r\n",
        b"0\r\n\n",
        b"0\r\n\rX",
        b"0\r\n X: y\r\n\r\n",
        b"0\r\nX y\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\nX: a\nY: b\r\n\r\n",
        b"0\r\nX: a\rY: b\r\n\r\n",
    ];
    for bytes in rows {
        let outcome = chunked(bytes);
        assert!(matches!(outcome, Err(BodyError::Malformed(_))), "{:?}: {outcome:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn chunks_are_bounded_together_and_before_they_come() {
    let too_large = Err(BodyError::TooLarge { bytes_max: 8 });
    assert_eq!(check(BodyFraming::Chunked, 8, b"5\r\nhello\r\n3\r\n123\r\n0\r\n\r\n").unwrap().0, b"hello123");
    assert_eq!(check(BodyFraming::Chunked, 8, b"5\r\nhello\r\n4\r\n"), too_large);
    assert_eq!(check(BodyFraming::Chunked, 8, b"ffffffffffffffff\r\n"), too_large);
    assert_eq!(check(BodyFraming::Chunked, 0, b"0\r\n\r\n"), Ok((vec![], 5, true)));
}

#[test]
fn ignored_lines_are_bounded_one_by_one_and_together() {
    let malformed = Err(BodyError::Malformed("chunk extensions or trailers are too long"));
    let extension = |len: usize| format!("1;{}\r\nx\r\n", "e".repeat(len));
    let trailer = |len: usize| format!("X:{}\r\n", "t".repeat(len - 2));

    let fits = format!("{}0\r\n{}\r\n", extension(CHUNK_LINE_BYTES_MAX), trailer(CHUNK_LINE_BYTES_MAX));
    assert_eq!(chunked(fits.as_bytes()), Ok((b"x".to_vec(), fits.len(), true)));
    assert_eq!(chunked(extension(CHUNK_LINE_BYTES_MAX + 1).as_bytes()), malformed);
    assert_eq!(chunked(format!("0\r\n{}", trailer(CHUNK_LINE_BYTES_MAX + 1)).as_bytes()), malformed);

    let lines = OVERHEAD_BYTES_MAX / 512;
    let fits = format!("{}0\r\n\r\n", extension(512).repeat(lines));
    assert_eq!(chunked(fits.as_bytes()).unwrap().0.len(), lines);
    assert_eq!(chunked(extension(512).repeat(lines + 1).as_bytes()), malformed);
    assert_eq!(chunked(format!("0\r\n{}", trailer(512).repeat(lines + 1)).as_bytes()), malformed);
}

#[test]
fn a_finished_body_stays_finished() {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, 8).unwrap();
    let mut body = Vec::new();
    assert_eq!(decoder.decode(b"0\r\n\r\n1", &mut body), Ok(BodyProgress { consumed: 5, done: true }));
    assert_eq!(decoder.decode(b"1\r\nx", &mut body), Ok(BodyProgress { consumed: 0, done: true }));
    assert!(body.is_empty());
}

#[test]
fn damaged_chunks_never_panic_and_never_depend_on_how_they_were_cut() {
    let good = b"5;a=b\r\nhello\r\nb\r\n world again\r\n0\r\nX-Sum: 12\r\n\r\nGET / HTTP/1.1\r\n";
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..5_000 {
        let mut bytes = good.to_vec();
        for _ in 0..random.usize(1..3) {
            let at = random.usize(..bytes.len());
            match random.u8(..3) {
                0 => bytes[at] = random.u8(..),
                1 => bytes.insert(at, *random.choice(b"\r\n\t ;:0f").unwrap()),
                _ => drop(bytes.remove(at)),
            }
        }
        let _ = check(BodyFraming::Chunked, 32, &bytes);
    }
}
