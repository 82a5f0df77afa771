//! What the struct says.

use std::collections::HashMap;

use proc_macro2::Span;
use syn::{
    Attribute, Data, DeriveInput, Error, Field, Fields, GenericArgument, Generics, Ident, LitInt,
    LitStr, Path, PathArguments, Result, Type, Visibility, ext::IdentExt, parse_quote,
    spanned::Spanned,
};

/// A struct that can be a row.
pub(crate) struct RowType {
    pub(crate) name: Ident,
    /// The crate with the module `table`.
    pub(crate) krate: Path,
    pub(crate) columns: Vec<Column>,
}

/// A field of it.
pub(crate) struct Column {
    pub(crate) field: Ident,
    /// The field without `r#`.
    pub(crate) name: String,
    /// Name of the constant that stands for the column.
    pub(crate) handle: Ident,
    pub(crate) visibility: Visibility,
    pub(crate) ty: Type,
    pub(crate) kind: Kind,
}

/// How a field becomes a column.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// Its type knows.
    Cell,
    /// A `String` of at most so many bytes.
    Text(usize),
    /// A `Vec<u8>` of at most so many bytes.
    Bytes(usize),
}

impl RowType {
    /// Reports all that is wrong, not only what is wrong first.
    pub(crate) fn parse(input: DeriveInput) -> Result<Self> {
        let fields = named_fields(&input.ident, input.data)?;
        let mut errors = Errors::default();
        errors.keep(refuse_generics(&input.generics));
        let krate = errors.keep(crate_path(&input.attrs));
        if fields.is_empty() {
            errors.add(Error::new(
                input.ident.span(),
                "a row needs at least one column: give the struct a field",
            ));
        }
        if let Some(field) = fields.iter().nth(MAX_COLUMNS) {
            errors.add(Error::new_spanned(
                field,
                format!(
                    "{} columns are too many: a table can have {MAX_COLUMNS}",
                    fields.len()
                ),
            ));
        }
        let mut columns = Vec::with_capacity(fields.len());
        let mut handles = HashMap::new();
        for field in fields {
            let Some(column) = errors.keep(Column::parse(field)) else {
                continue;
            };
            if let Some(other) = handles.insert(column.handle.to_string(), column.name.clone()) {
                errors.add(Error::new(
                    column.field.span(),
                    format!(
                        "`{}` and `{other}` differ in case only: both columns would be called `{}`",
                        column.name, column.handle
                    ),
                ));
            }
            columns.push(column);
        }
        errors.into_result()?;
        Ok(RowType {
            name: input.ident,
            // Without an error there is a path.
            krate: krate.unwrap_or_else(default_crate),
            columns,
        })
    }
}

impl Column {
    fn parse(field: Field) -> Result<Self> {
        let kind = kind(&field)?;
        let Some(ident) = field.ident else {
            return Err(Error::new(field.ty.span(), NAMED_FIELDS));
        };
        let name = ident.unraw().to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.len() > MAX_NAME || !name.chars().all(plain) {
            return Err(Error::new(
                ident.span(),
                format!(
                    "`{name}` cannot be the name of a column: 1 to {MAX_NAME} ASCII letters, digits \
                     and `_` can"
                ),
            ));
        }
        Ok(Column {
            handle: Ident::new(&name.to_ascii_uppercase(), ident.span()),
            field: ident,
            name,
            visibility: field.vis,
            ty: field.ty,
            kind,
        })
    }
}

/// A struct without fields is told what it lacks later.
fn named_fields(name: &Ident, data: Data) -> Result<Fields> {
    let (span, found) = match data {
        Data::Struct(data) => match data.fields {
            fields @ (Fields::Named(_) | Fields::Unit) => return Ok(fields),
            fields @ Fields::Unnamed(_) => (fields.span(), "a tuple struct"),
        },
        Data::Enum(data) => (data.enum_token.span, "an enum"),
        Data::Union(data) => (data.union_token.span, "a union"),
    };
    Err(Error::new(
        span,
        format!("{NAMED_FIELDS}; `{name}` is {found}"),
    ))
}

fn refuse_generics(generics: &Generics) -> Result<()> {
    let message = "a row cannot be generic: all processes have to agree on its columns";
    match &generics.where_clause {
        _ if !generics.params.is_empty() => Err(Error::new_spanned(generics, message)),
        Some(clause) => Err(Error::new_spanned(clause, message)),
        None => Ok(()),
    }
}

/// `#[row(crate = "path")]` at the struct.
fn crate_path(attributes: &[Attribute]) -> Result<Path> {
    let mut krate = None;
    for attribute in row_attributes(attributes) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("max") {
                return Err(meta.error("`max` belongs to a field"));
            }
            if !meta.path.is_ident("crate") {
                return Err(meta.error("unknown attribute: a struct can have `crate = \"path\"`"));
            }
            let text: LitStr = meta.value()?.parse()?;
            let path = text.parse_with(Path::parse_mod_style).map_err(|_| {
                Error::new(
                    text.span(),
                    "not a path, such as \"gannet\" or \"gannet_shm\"",
                )
            })?;
            match krate.replace(path) {
                None => Ok(()),
                Some(_) => Err(Error::new(meta.path.span(), "`crate` is given twice")),
            }
        })?;
    }
    Ok(krate.unwrap_or_else(default_crate))
}

fn kind(field: &Field) -> Result<Kind> {
    let max = max(&field.attrs)?;
    let growing = match &field.ty {
        Type::Path(ty) if ty.qself.is_none() => growing(&ty.path),
        _ => None,
    };
    match (growing, max) {
        (Some(kind), Some((max, _))) => Ok(kind(max)),
        (None, None) => Ok(Kind::Cell),
        (Some(_), None) => Err(Error::new_spanned(
            &field.ty,
            "how long can it get? Put `#[row(max = 64)]` in front, with the most bytes; every row of \
             the table has room for so many",
        )),
        (None, Some((_, span))) => Err(Error::new(
            span,
            "`max` is for `String` and `Vec<u8>`; the room of other columns is in their type",
        )),
    }
}

/// `#[row(max = 64)]` at a field, and where it stands.
fn max(attributes: &[Attribute]) -> Result<Option<(usize, Span)>> {
    let mut max = None;
    for attribute in row_attributes(attributes) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                return Err(meta.error("`crate` belongs to the struct"));
            }
            if !meta.path.is_ident("max") {
                return Err(meta.error("unknown attribute: a field can have `max = BYTES`"));
            }
            let number: LitInt = meta.value()?.parse()?;
            let bytes = number
                .base10_parse()
                .ok()
                .filter(|bytes| number.suffix().is_empty() && (1..=MAX_VALUE).contains(bytes))
                .ok_or_else(|| {
                    Error::new_spanned(
                        &number,
                        format!("`max` is a number of bytes, from 1 to {MAX_VALUE}"),
                    )
                })?;
            match max.replace((bytes, meta.path.span())) {
                None => Ok(()),
                Some(_) => Err(Error::new(meta.path.span(), "`max` is given twice")),
            }
        })?;
    }
    Ok(max)
}

/// For `String` and `Vec<u8>`, by whichever path of the standard library.
fn growing(path: &Path) -> Option<fn(usize) -> Kind> {
    let last = path.segments.last()?;
    let root = &path.segments.first()?.ident;
    if path.segments.len() > 1 && root != "std" && root != "alloc" {
        return None;
    }
    match &last.arguments {
        PathArguments::None if last.ident == "String" => Some(Kind::Text),
        PathArguments::AngleBracketed(arguments) if last.ident == "Vec" => {
            let mut arguments = arguments.args.iter();
            match (arguments.next(), arguments.next()) {
                (Some(GenericArgument::Type(Type::Path(item))), None)
                    if item.path.is_ident("u8") =>
                {
                    Some(Kind::Bytes)
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn row_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("row"))
}

fn default_crate() -> Path {
    parse_quote!(::gannet)
}

/// What is wrong so far.
#[derive(Default)]
struct Errors(Option<Error>);

impl Errors {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

// The table has the same limits, and checks them again.
const MAX_COLUMNS: usize = 256;
const MAX_VALUE: usize = 65_535;
const MAX_NAME: usize = 64;

const NAMED_FIELDS: &str = "a row is a struct with named fields";
