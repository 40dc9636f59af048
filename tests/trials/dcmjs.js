// Store, find, move and get with dcmjs-dimse, and be a move's destination; print what came of it as JSON.
// Arguments: the gateway's port, the destination's port, a Study Instance UID, files to store.

const { Client, Scp, Server, constants, log, requests, responses } = require('dcmjs-dimse');

const { PresentationContextResult, Status, TransferSyntax } = constants;
const [port, destinationPort, study, ...files] = process.argv.slice(2);
const moved = [];

log.setLevel('silent');

function success(request) {
  const response = responses.CStoreResponse.fromRequest(request);
  response.setStatus(Status.Success);
  return response;
}

class Destination extends Scp {
  associationRequested(association) {
    for (const { id } of association.getPresentationContexts()) {
      const context = association.getPresentationContext(id);
      const native = context.getTransferSyntaxUids().includes(TransferSyntax.ExplicitVRLittleEndian);
      context.setResult(
        native ? PresentationContextResult.Accept : PresentationContextResult.RejectTransferSyntaxesNotSupported,
        native ? TransferSyntax.ExplicitVRLittleEndian : undefined
      );
    }
    this.sendAssociationAccept();
  }

  cStoreRequest(request, callback) {
    moved.push(request.getAffectedSopInstanceUid());
    callback(success(request));
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

function run(...asked) {
  return new Promise((resolve, reject) => {
    const client = new Client();
    const result = { responses: [], got: [] };
    for (const request of asked) {
      request.on('response', (response) =>
        result.responses.push({
          status: response.getStatus(),
          study: response.hasDataset?.() ? response.getDataset().getElement('StudyInstanceUID') : undefined,
          counters: response.getCompleted && [
            response.getRemaining(),
            response.getCompleted(),
            response.getFailures(),
            response.getWarnings(),
          ],
        })
      );
      client.addRequest(request);
    }
    client.on('cStoreRequest', (request, callback) => {
      result.got.push(request.getAffectedSopInstanceUid());
      callback(success(request));
    });
    client.on('networkError', reject);
    client.on('associationRejected', () => reject(new Error('association rejected')));
    client.on('closed', () => resolve(result));
    client.send('127.0.0.1', Number(port), 'DCMJS', 'GATEWAY');
  });
}

async function main() {
  const server = new Server(Destination);
  server.listen(Number(destinationPort));
  const results = {
    echo: await run(new requests.CEchoRequest()),
    store: await run(...files.map((file) => new requests.CStoreRequest(file))),
    find: await run(requests.CFindRequest.createStudyFindRequest({ PatientID: '', StudyInstanceUID: '' })),
    move: await run(requests.CMoveRequest.createStudyMoveRequest('DEST', study)),
    missing: await run(requests.CMoveRequest.createStudyMoveRequest('DEST', '1.2.3.4.5')),
    unknown: await run(requests.CMoveRequest.createStudyMoveRequest('NOBODY', study)),
    get: await run(requests.CGetRequest.createStudyGetRequest(study)),
    moved,
  };
  console.log(JSON.stringify(results));
  server.close();
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
