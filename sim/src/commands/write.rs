//! Writes files: whole or not at all, and tables as CSV and Parquet.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use sim::table::{Cells, Table};

/// Rows of a Parquet row group.
const ROWS: usize = 1 << 20;

/// Replaces the file at `path`: a reader sees the old bytes or the new, whenever this process is
/// killed.
pub(crate) fn whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = path.file_name().context("no file name")?.to_string_lossy();
    // Two shards that do the same run at once must not share the file that they write.
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Makes the folder at `path` if it is absent, and tries it: better now than after hours.
pub(crate) fn folder(path: &Path) -> anyhow::Result<()> {
    let tried = path.join(format!(".try.{}", std::process::id()));
    fs::create_dir_all(path)
        .and_then(|()| fs::write(&tried, ""))
        .and_then(|()| fs::remove_file(&tried))
        .with_context(|| format!("writing to {}", path.display()))
}

/// Takes the file at `path` away, if there is one.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// `table` as CSV.
pub(crate) fn csv(table: &Table) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let columns = table.columns();
    writer.write_record(columns.iter().map(|(name, _)| name))?;
    for row in 0..table.rows() {
        writer.write_record(columns.iter().map(|(_, cells)| cells.show(row)))?;
    }
    Ok(writer.into_inner().map_err(|error| error.into_error())?)
}

/// `table` as Parquet.
pub(crate) fn parquet(table: &Table) -> anyhow::Result<Vec<u8>> {
    let fields: String = table
        .columns()
        .iter()
        .map(|(name, cells)| match cells {
            Cells::Count(_) => format!("required int64 {name} (INTEGER(64,false)); "),
            Cells::Real(_) => format!("required double {name}; "),
            Cells::Text(_) => format!("required binary {name} (UTF8); "),
        })
        .collect();
    let schema = Arc::new(parse_message_type(&format!(
        "message table {{ {fields} }}"
    ))?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_created_by(format!("lacuna-sim {}", env!("CARGO_PKG_VERSION")))
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for start in (0..table.rows()).step_by(ROWS) {
        let rows = start..table.rows().min(start + ROWS);
        let mut group = writer.next_row_group()?;
        for (_, cells) in table.columns() {
            let mut column = group.next_column()?.context("a column of the schema")?;
            match cells {
                Cells::Count(cells) => {
                    // As the schema says: the same 64 bits, read as unsigned.
                    let cells: Vec<i64> = cells[rows.clone()]
                        .iter()
                        .map(|n| n.cast_signed())
                        .collect();
                    column
                        .typed::<Int64Type>()
                        .write_batch(&cells, None, None)?;
                }
                Cells::Real(cells) => {
                    let cells = &cells[rows.clone()];
                    column
                        .typed::<DoubleType>()
                        .write_batch(cells, None, None)?;
                }
                Cells::Text(cells) => {
                    let cells: Vec<ByteArray> = cells[rows.clone()]
                        .iter()
                        .map(|text| text.as_str().into())
                        .collect();
                    column
                        .typed::<ByteArrayType>()
                        .write_batch(&cells, None, None)?;
                }
            }
            column.close()?;
        }
        group.close()?;
    }
    Ok(writer.into_inner()?)
}
