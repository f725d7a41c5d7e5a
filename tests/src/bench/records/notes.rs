//! How the figures on records are to be read.

pub(super) const NOTES: &str = "\
Each column is a stack of its own. 32 of its keys are made through REST and spread evenly over the names `key-000000`,
`key-000001`, …; they sign. All other records are well-formed copies of one of them under other names: they list and show,
and the enclave would refuse to open them. The directory is filled by writing files, the table by BatchWriteItem.
Times are medians, taken at a caller on the same machine, one request at a time: 9 starts, 15 pages, the whole walk, 200
keys to show or read (far apart, the same ones in each run), 32 signatures (160 where the key is held). Files were written
a moment ago, so they come from the kernel's page cache. The parent reaches moto through a relay that counts its calls;
moto alone is asked without relay and parent.

What depends on the number of records, and why:

* **Directory, the first list after start-up**: the parent has to read the folder's names once, and sort them. It keeps
  them until the folder changes, so the list after a creation, a deletion or a change of a record pays this again, and no
  other call does. The names are also what its memory grows by.
* **DynamoDB, lists**: the parent makes the same number of Scans at any size, and a page takes what moto alone takes for
  its Scan: moto sorts the whole table for each, and walks through everything before the cursor. DynamoDB itself goes to
  the cursor directly; that is not measured here.
* **DynamoDB, reading one record**: one GetItem at any size, which moto too answers more slowly from a large table.

A page of the walk has 249 keys, because one Scan of the parent reads 250 items and the parent looks one key ahead to know
whether the list goes on.
";
