"""Files and tables: folders on any filesystem, images, archive layouts, Arrow schemas, generated demo data."""
