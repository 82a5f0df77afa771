//! What the derive says about structs that cannot be rows, and where.

#[test]
fn say_at_the_place_what_cannot_be_a_row() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
