//! Field compression (4.3, and RFC 7541).

use gannet_tests::frames::{
    frame::{code::COMPRESSION_ERROR, data, headers, kind, raw, setting, settings},
    hpack::{Block, get, post},
    row::{Row, row},
};

pub(super) fn rows() -> Vec<Row> {
    [errors(), strings(), tables(), forms()].concat()
}

/// What no decoder can read is an error of the connection, wherever it stands.
fn errors() -> Vec<Row> {
    let error = |section, rule, block: Block| {
        row(&format!("RFC 7541 {section}"), rule)
            .send(headers(1, block).end_stream())
            .connection_error(&[COMPRESSION_ERROR])
    };
    let whole = || get("/");
    vec![
        error("6.1", "the index 0 is an error", whole().raw([0x80])),
        error(
            "2.3.3",
            "an index behind the tables is an error",
            whole().indexed(62),
        ),
        error(
            "2.3.3",
            "a great index is an error",
            whole().indexed(100_000),
        ),
        error(
            "2.3.3",
            "a name at an index behind the tables is an error",
            whole().named(62, "x"),
        ),
        error(
            "5.1",
            "a number that does not end is an error",
            whole().raw([0xff; 3]),
        ),
        error(
            "5.1",
            "a number that is too great is an error",
            whole().raw([
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
            ]),
        ),
        error(
            "5.2",
            "a name that is cut is an error",
            whole().raw([0, 10, b'x']),
        ),
        error(
            "5.2",
            "a value that is cut is an error",
            whole().raw([0, 1, b'x', 10, b'y']),
        ),
        error(
            "5.2",
            "a field without a value is an error",
            whole().raw([0, 1, b'x']),
        ),
        error(
            "5.2",
            "a field without a name is an error",
            whole().raw([0x40]),
        ),
        error(
            "5.2",
            "a string longer than all fields may be is an error",
            whole().raw([0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0x7f]),
        ),
        error(
            "4.2",
            "a table size behind a field is an error",
            whole().table_size(0),
        ),
        error(
            "4.2",
            "a table size between fields is an error",
            Block::default()
                .indexed(2)
                .table_size(100)
                .indexed(6)
                .indexed(4),
        ),
        error(
            "6.3",
            "a table size over the limit is an error",
            Block::default().table_size(1 << 20).raw(whole().bytes()),
        ),
        error(
            "6.3",
            "a table size over the limit is an error, whatever follows",
            Block::default()
                .table_size(1 << 20)
                .table_size(0)
                .raw(whole().bytes()),
        ),
        row(
            "4.3",
            "an error in a block of trailers is one of the connection",
        )
        .send(headers(1, post("/echo")))
        .send(data(1, b"x"))
        .send(headers(1, Block::default().indexed(99)).end_stream())
        .connection_error(&[COMPRESSION_ERROR]),
        row("4.3", "a block that ends within a field is an error")
            .send(headers(1, [get("/").bytes(), &[0]].concat()).end_stream())
            .connection_error(&[COMPRESSION_ERROR]),
    ]
}

/// 5.2: strings in the Huffman code.
fn strings() -> Vec<Row> {
    let coded = |rule, code: &[u8]| {
        let block = get("/").raw([0]).string(b"x-coded").huffman(code);
        row("RFC 7541 5.2", rule).send(headers(1, block).end_stream())
    };
    let wrong = |rule, code: &[u8]| coded(rule, code).connection_error(&[COMPRESSION_ERROR]);
    vec![
        // `a` is 00011.
        coded("a value may be coded", &[0b0001_1111]).answered(1, 200),
        coded("a coded value may be empty", &[]).answered(1, 200),
        wrong("padding with zeros is an error", &[0b0001_1000]),
        wrong("padding with a zero within is an error", &[0b0001_1101]),
        wrong(
            "padding of 8 bits and more is an error",
            &[0b0001_1111, 0xff],
        ),
        wrong("padding alone is an error: a whole byte", &[0xff]),
        wrong("the end of the string as a symbol is an error", &[0xff; 4]),
        wrong(
            "the end of the string behind a symbol is an error",
            &[0b0001_1111, 0xff, 0xff, 0xff, 0xff],
        ),
        // 11111111|1100 0 is the beginning of a code of 13 bits.
        wrong("a code that is cut is an error", &[0xff, 0xc0]),
        coded(
            "a value that is not allowed is not allowed in the code either: NUL",
            &[0xff, 0b1100_0111],
        )
        .malformed(1),
    ]
}

fn tables() -> Vec<Row> {
    let learns = |block: Block| headers(1, get("/").raw(block.bytes())).end_stream();
    let known = |index| headers(3, get("/").indexed(index)).end_stream();
    let rule = |section, rule| row(&format!("RFC 7541 {section}"), rule);
    let field = || Block::default().remembered("x-known", "yes");
    vec![
        rule(
            "2.3.2",
            "a field that was remembered is known in the next request",
        )
        .send(learns(field()))
        .send(known(62))
        .answered(3, 200),
        rule("2.3.3", "the newest field comes first")
            .send(learns(field().remembered("x-b", "2")))
            .send(headers(3, get("/").indexed(62).indexed(63)).end_stream())
            .answered(3, 200),
        rule("2.3.3", "there is nothing behind the oldest field")
            .send(learns(field().remembered("x-b", "2")))
            .send(known(64))
            .connection_error(&[COMPRESSION_ERROR]),
        rule("4.3", "a table size of 0 empties the table")
            .send(learns(field()))
            .send(headers(3, Block::default().table_size(0).raw(get("/").bytes())).end_stream())
            .send(headers(5, get("/").indexed(62)).end_stream())
            .connection_error(&[COMPRESSION_ERROR]),
        rule("4.2", "two table sizes may come in front of a block")
            .send(
                headers(
                    1,
                    Block::default()
                        .table_size(0)
                        .table_size(4096)
                        .raw(get("/").bytes()),
                )
                .end_stream(),
            )
            .answered(1, 200),
        rule(
            "4.4",
            "a field greater than the table empties it, and is no error",
        )
        .send(learns(field().remembered("x-great", vec![b'g'; 5_000])))
        .send(headers(3, get("/")).end_stream())
        .answered(3, 200),
        rule(
            "4.4",
            "a field greater than the table empties it: nothing is left",
        )
        .send(learns(field().remembered("x-great", vec![b'g'; 5_000])))
        .send(known(62))
        .connection_error(&[COMPRESSION_ERROR]),
        rule("4.4", "the oldest fields give way")
            .send(learns(field().remembered("x-great", vec![b'g'; 4_040])))
            .send(known(63))
            .connection_error(&[COMPRESSION_ERROR]),
        rule("4.4", "a field of exactly the table's size has room")
            .send(learns(
                Block::default().remembered("x", vec![b'g'; 4_096 - 33]),
            ))
            .send(known(62))
            .answered(3, 200),
        rule("2.2", "a request that is refused changes the table too")
            .send(
                headers(1, get("/").field("te", "gzip").remembered("x-known", "yes")).end_stream(),
            )
            .reset(1)
            .send(known(62))
            .answered(3, 200),
        row(
            "4.3.1",
            "the client's own table does not change what the server may be sent",
        )
        .send(settings(&[(setting::HEADER_TABLE_SIZE, 0)]))
        .send(learns(field()))
        .send(known(62))
        .answered(3, 200),
    ]
}

/// Every representation is understood.
fn forms() -> Vec<Row> {
    let fine = |rule, block: Block| {
        row("RFC 7541 6", rule)
            .send(headers(1, block).end_stream())
            .answered(1, 200)
    };
    vec![
        fine(
            "fields of the fixed table are understood",
            Block::default()
                .indexed(2)
                .indexed(6)
                .indexed(4)
                .named(1, "test"),
        ),
        fine(
            "a field that is never indexed is understood",
            get("/").secret("x-secret", "s"),
        ),
        fine(
            "a name of the fixed table is understood",
            get("/").named(58, "me"),
        ),
        fine(
            "an empty value is understood",
            get("/").field("x-empty", ""),
        ),
        fine(
            "a table size in front of the block is understood",
            Block::default().table_size(100).raw(get("/").bytes()),
        ),
        fine(
            "a number may have more bytes than it needs",
            get("/")
                .raw([0, 0x7f, 0x80, 0x00])
                .raw(vec![b'x'; 127])
                .string(b"v"),
        ),
        row(
            "4.3",
            "a block without any field is read, and is no request",
        )
        .send(raw(kind::HEADERS, 0x5, 1, []))
        .malformed(1),
        fine(
            "a request in the Huffman code is understood",
            Block::default()
                .indexed(2)
                .indexed(6)
                .indexed(4)
                // www.example.com
                .raw([0x41])
                .huffman(&[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ]),
        ),
    ]
}
