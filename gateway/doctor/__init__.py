"""`dicom-gateway doctor`: look at the machine, the archives and the peers, and say what to do about what is found."""
