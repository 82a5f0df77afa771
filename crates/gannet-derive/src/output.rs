//! The code that is written.
//!
//! Where a column begins is the sum of the words in front of it, and how many words a column has only
//! its type says: so the compiler adds them up, in a constant that all the rest uses.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Path, spanned::Spanned};

use crate::input::{Column, Kind, RowType};

pub(crate) fn write(row: &RowType) -> TokenStream {
    let RowType {
        name,
        krate,
        columns,
    } = row;
    let count = columns.len();
    let specs = columns.iter().map(|column| {
        let (name, kind) = (&column.name, column.kind(krate));
        quote!(#krate::table::ColumnSpec { name: #name, kind: #kind })
    });
    let checks = columns.iter().filter_map(|column| column.check(krate));
    let stores = columns.iter().enumerate().map(|(i, c)| c.store(krate, i));
    let loads = columns.iter().enumerate().map(|(i, c)| c.load(krate, i));
    let handles = columns
        .iter()
        .enumerate()
        .filter_map(|(i, c)| c.handle(krate, i));
    quote! {
        const _: () = {
            // The first word of each column, and behind them the number of all words.
            const __GANNET_AT: [usize; #count + 1] = {
                let mut at = [0; #count + 1];
                let mut column = 0;
                while column < #count {
                    let kind = <#name as #krate::table::Row>::COLUMNS[column].kind;
                    at[column + 1] = at[column] + kind.words();
                    column += 1;
                }
                at
            };

            #[automatically_derived]
            impl #krate::table::Row for #name {
                const COLUMNS: &'static [#krate::table::ColumnSpec] = &[#(#specs),*];
                const WORDS: usize = __GANNET_AT[#count];

                #[inline]
                fn store(
                    &self,
                    mut put: impl ::core::ops::FnMut(usize, u64),
                ) -> ::core::result::Result<(), #krate::table::ValueTooLong> {
                    #(#checks)*
                    #(#stores)*
                    ::core::result::Result::Ok(())
                }

                #[inline]
                fn load(word: impl ::core::ops::Fn(usize) -> u64) -> Self {
                    Self { #(#loads),* }
                }
            }

            #[automatically_derived]
            #[allow(dead_code)]
            impl #name {
                #(#handles)*
            }
        };
    }
}

impl Column {
    fn kind(&self, krate: &Path) -> TokenStream {
        let ty = &self.ty;
        match self.kind {
            // A type that is no column is an error at the type.
            Kind::Cell => quote_spanned!(ty.span()=> <#ty as #krate::table::Cell>::KIND),
            Kind::Text(max) => quote!(#krate::table::ColumnKind::Text(#max)),
            Kind::Bytes(max) => quote!(#krate::table::ColumnKind::Bytes(#max)),
        }
    }

    /// Stops before anything is stored if the value is too long.
    fn check(&self, krate: &Path) -> Option<TokenStream> {
        self.store_growing(krate, quote!(|_, _| ()))
    }

    fn store(&self, krate: &Path, index: usize) -> TokenStream {
        let put = quote!(|word, value| put(const { __GANNET_AT[#index] } + word, value));
        self.store_growing(krate, put.clone()).unwrap_or_else(|| {
            let (field, ty) = (&self.field, &self.ty);
            quote_spanned!(ty.span()=> <#ty as #krate::table::Cell>::store(&self.#field, #put);)
        })
    }

    fn store_growing(&self, krate: &Path, put: TokenStream) -> Option<TokenStream> {
        let (field, name) = (&self.field, &self.name);
        match self.kind {
            Kind::Cell => None,
            Kind::Text(max) => Some(quote! {
                #krate::table::cell::store_text(#name, #max, &self.#field, #put)?;
            }),
            Kind::Bytes(max) => Some(quote! {
                #krate::table::cell::store_bytes(#name, #max, &self.#field, #put)?;
            }),
        }
    }

    fn load(&self, krate: &Path, index: usize) -> TokenStream {
        let (field, ty) = (&self.field, &self.ty);
        let words = quote!(|index| word(const { __GANNET_AT[#index] } + index));
        let value = match self.kind {
            Kind::Cell => quote_spanned!(ty.span()=> <#ty as #krate::table::Cell>::load(#words)),
            Kind::Text(max) => quote!(#krate::table::cell::load_text(#max, #words)),
            Kind::Bytes(max) => quote!(#krate::table::cell::load_bytes(#max, #words)),
        };
        quote!(#field: #value)
    }

    /// The constant by which a table is told this column. There is none for what has no `Cell` type.
    fn handle(&self, krate: &Path, index: usize) -> Option<TokenStream> {
        let Kind::Cell = self.kind else { return None };
        let (visibility, handle, ty) = (&self.visibility, &self.handle, &self.ty);
        let doc = format!("The column `{}`.", self.name);
        Some(quote! {
            #[doc = #doc]
            #visibility const #handle: #krate::table::Column<Self, #ty> =
                #krate::table::Column::at(__GANNET_AT[#index]);
        })
    }
}
