"From files and tables to manifests, splits, features and batches"
