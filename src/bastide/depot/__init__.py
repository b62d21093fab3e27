"""Where the files of archives are kept: a directory of this server, or S3."""
