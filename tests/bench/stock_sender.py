"""Send a folder's files with stock pynetdicom over one association and print the seconds it took."""

import sys
from pathlib import Path
from time import perf_counter

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, _config


def main(port: int, folder: Path) -> None:
    _config.STORE_SEND_CHUNKED_DATASET = True  # its faster way: the files are sent as they are
    entity = AE(ae_title="STOCK")
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", port)
    begun = perf_counter()
    for path in sorted(folder.iterdir()):
        status = association.send_c_store(path)
        if status.Status != 0:
            raise RuntimeError(f"C-STORE status {status.Status:04X}H")
    print(perf_counter() - begun)
    association.release()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
