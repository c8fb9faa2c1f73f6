// The AWS SDK for JavaScript against a server: prints one JSON object, part name -> what it saw.
// AWS_ENDPOINT_URL and credentials come from the environment; argv: the parts to run.
import {
  BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand, InvokeModelCommand,
} from "@aws-sdk/client-bedrock-runtime";
import { DynamoDBClient, CreateTableCommand, waitUntilTableExists } from "@aws-sdk/client-dynamodb";
import { LambdaClient, InvokeCommand, InvokeWithResponseStreamCommand } from "@aws-sdk/client-lambda";
import {
  S3Client, CreateBucketCommand, DeleteObjectsCommand, GetObjectCommand, HeadObjectCommand, ListObjectsV2Command,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import {
  SQSClient, CreateQueueCommand, DeleteMessageBatchCommand, GetQueueUrlCommand, ReceiveMessageCommand,
  SendMessageBatchCommand,
} from "@aws-sdk/client-sqs";
import {
  DynamoDBDocumentClient, GetCommand, PutCommand, QueryCommand, TransactWriteCommand, UpdateCommand,
} from "@aws-sdk/lib-dynamodb";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import { NodeHttpHandler } from "@smithy/node-http-handler";
import { createHash } from "node:crypto";
import dns from "node:dns";
import { Readable } from "node:stream";

const settings = { maxAttempts: 1 };

// Names below localhost are this machine (RFC 6761); not every resolver knows.
const lookup = dns.lookup;
dns.lookup = (name, options, done) => lookup(name.endsWith(".localhost") ? "127.0.0.1" : name, options, done);

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    return [error.name, error.$metadata?.httpStatusCode, error.message];
  }
  return null;
}

async function sqs() {
  const client = new SQSClient(settings);
  const { QueueUrl } = await client.send(new CreateQueueCommand({ QueueName: "node" }));
  const batch = ["a", "ü & <b>"].map((MessageBody, n) => ({ Id: String(n), MessageBody }));
  const sent = await client.send(new SendMessageBatchCommand({ QueueUrl, Entries: batch }));
  const got = await client.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 1 }));
  const handles = got.Messages.map((one, n) => ({ Id: String(n), ReceiptHandle: one.ReceiptHandle }));
  const gone = await client.send(new DeleteMessageBatchCommand({ QueueUrl, Entries: handles }));
  return {
    url: QueueUrl,
    sent: sent.Successful.length,
    bodies: got.Messages.map((one) => one.Body).sort(),
    deleted: gone.Successful.length,
    missing: await refusal(client.send(new GetQueueUrlCommand({ QueueName: "node-nowhere" }))),
  };
}

async function s3Round(client, Bucket) {
  await client.send(new CreateBucketCommand({ Bucket }));
  const put = await client.send(new PutObjectCommand({
    Bucket, Key: "a b/ü.txt", Body: "hello", ContentType: "text/plain", Metadata: { color: "red" },
  }));
  const stream = Readable.from([Buffer.alloc(70_000, "x"), Buffer.alloc(70_000, "y")]);
  await client.send(new PutObjectCommand({ Bucket, Key: "streamed", Body: stream, ContentLength: 140_000 }));
  const got = await client.send(new GetObjectCommand({ Bucket, Key: "a b/ü.txt", ChecksumMode: "ENABLED" }));
  const large = Buffer.alloc(6 * 1024 * 1024, "0123456789");
  const upload = new Upload({ client, params: { Bucket, Key: "large", Body: Readable.from([large]) } });
  const done = await upload.done();
  const back = await client.send(new GetObjectCommand({ Bucket, Key: "large" }));
  const listed = await client.send(new ListObjectsV2Command({ Bucket, Prefix: "" }));
  const url = await getSignedUrl(client, new GetObjectCommand({ Bucket, Key: "a b/ü.txt" }), { expiresIn: 60 });
  const signedPut = await getSignedUrl(client, new PutObjectCommand({ Bucket, Key: "presigned" }), { expiresIn: 60 });
  const putAnswer = await fetch(signedPut, { method: "PUT", body: "through a URL" });
  const presigned = await client.send(new GetObjectCommand({ Bucket, Key: "presigned" }));
  const deleted = await client.send(new DeleteObjectsCommand({ Bucket, Delete: { Objects: [{ Key: "large" }] } }));
  return {
    crc: put.ChecksumCRC32,
    text: await got.Body.transformToString(),
    crcBack: got.ChecksumCRC32,
    metadata: got.Metadata,
    partsTag: done.ETag.slice(-3),
    same: createHash("sha1").update(await back.Body.transformToByteArray()).digest("hex")
      === createHash("sha1").update(large).digest("hex"),
    keys: listed.Contents.map((one) => [one.Key, one.Size]),
    host: new URL(url).hostname,
    signed: await (await fetch(url)).text(),
    put: [putAnswer.status, await presigned.Body.transformToString()],
    deleted: deleted.Deleted.map((one) => one.Key),
    missing: await refusal(client.send(new GetObjectCommand({ Bucket, Key: "none" }))),
    missingHead: (await refusal(client.send(new HeadObjectCommand({ Bucket, Key: "none" })))).slice(0, 2),
    wrongDigest: (await refusal(client.send(new PutObjectCommand({
      Bucket, Key: "bad", Body: "other", ChecksumCRC32: put.ChecksumCRC32,
    })))).slice(0, 2),
  };
}

async function s3() {
  const named = process.env.AWS_ENDPOINT_URL.replace("127.0.0.1", "localhost");
  const service = named.replace("localhost", "s3.localhost");
  return {
    address: await s3Round(new S3Client(settings), "node-address"),
    forced: await s3Round(new S3Client({ ...settings, endpoint: named, forcePathStyle: true }), "node-forced"),
    host: await s3Round(new S3Client({ ...settings, endpoint: named }), "node-host"),
    service: await s3Round(new S3Client({ ...settings, endpoint: service }), "node-service"),
  };
}

async function dynamodb() {
  const client = new DynamoDBClient(settings);
  const documents = DynamoDBDocumentClient.from(client, { marshallOptions: { removeUndefinedValues: true } });
  const TableName = "node";
  await client.send(new CreateTableCommand({
    TableName,
    BillingMode: "PAY_PER_REQUEST",
    AttributeDefinitions: [
      { AttributeName: "pk", AttributeType: "S" }, { AttributeName: "sk", AttributeType: "N" },
    ],
    KeySchema: [{ AttributeName: "pk", KeyType: "HASH" }, { AttributeName: "sk", KeyType: "RANGE" }],
  }));
  await waitUntilTableExists({ client, maxWaitTime: 10, minDelay: 1 }, { TableName });
  const item = { pk: "a", sk: 1, tags: new Set(["x", "y"]), raw: new Uint8Array([0, 255]), deep: [{ n: 1.5 }, null] };
  await documents.send(new PutCommand({ TableName, Item: item }));
  const got = await documents.send(new GetCommand({ TableName, Key: { pk: "a", sk: 1 } }));
  const updated = await documents.send(new UpdateCommand({
    TableName, Key: { pk: "a", sk: 1 }, UpdateExpression: "ADD hits :one", ReturnValues: "UPDATED_NEW",
    ExpressionAttributeValues: { ":one": 1 },
  }));
  await documents.send(new TransactWriteCommand({
    TransactItems: [2, 3].map((sk) => ({ Put: { TableName, Item: { pk: "a", sk } } })),
  }));
  const found = await documents.send(new QueryCommand({
    TableName, KeyConditionExpression: "pk = :p AND sk >= :s", ExpressionAttributeValues: { ":p": "a", ":s": 2 },
  }));
  const condition = { TableName, Item: { pk: "a", sk: 1 }, ConditionExpression: "attribute_not_exists(pk)" };
  return {
    tags: [...got.Item.tags].sort(),
    raw: [...got.Item.raw],
    deep: got.Item.deep,
    hits: updated.Attributes.hits,
    found: found.Items.map((one) => one.sk),
    refused: await refusal(documents.send(new PutCommand(condition))),
  };
}

async function lambda() {
  const client = new LambdaClient(settings);
  const text = (bytes) => Buffer.from(bytes).toString();
  const FunctionName = process.env.FUNCTION;
  const answer = await client.send(new InvokeCommand({ FunctionName, Payload: '{"words": ["a"]}', LogType: "Tail" }));
  const streamed = await client.send(new InvokeWithResponseStreamCommand({
    FunctionName, Payload: '{"words": ["first", "second"]}',
  }));
  const chunks = [];
  let end = null;
  for await (const event of streamed.EventStream) {
    if (event.PayloadChunk) chunks.push(text(event.PayloadChunk.Payload));
    if (event.InvokeComplete) end = event.InvokeComplete;
  }
  const failed = await client.send(new InvokeCommand({ FunctionName, Payload: "{}" }));
  return {
    status: answer.StatusCode,
    payload: text(answer.Payload),
    log: text(Buffer.from(answer.LogResult, "base64")).includes("REPORT RequestId"),
    chunks,
    complete: end !== null && !end.ErrorCode,
    failed: [failed.FunctionError, JSON.parse(text(failed.Payload)).errorType],
    missing: await refusal(client.send(new InvokeCommand({ FunctionName: "node-nowhere" }))),
  };
}

async function bedrock() {
  // Left to itself this client speaks HTTP/2.
  const client = new BedrockRuntimeClient({ ...settings, requestHandler: new NodeHttpHandler() });
  const modelId = "preheat.extractive-v1";
  const messages = [{ role: "user", content: [{ text: process.env.PROMPT }] }];
  const answer = await client.send(new ConverseCommand({ modelId, messages }));
  const streamed = await client.send(new ConverseStreamCommand({ modelId, messages }));
  const kinds = [];
  let text = "";
  for await (const event of streamed.stream) {
    kinds.push(Object.keys(event)[0]);
    text += event.contentBlockDelta?.delta?.text ?? "";
  }
  const model = { modelId: "preheat.hashing-1024", body: '{"inputText": "warm"}', contentType: "application/json" };
  const embedded = await client.send(new InvokeModelCommand(model));
  return {
    answer: answer.output.message.content[0].text,
    stop: answer.stopReason,
    streamed: text,
    kinds: [...new Set(kinds)],
    dimensions: JSON.parse(Buffer.from(embedded.body).toString()).embedding.length,
    refused: (await refusal(client.send(new ConverseCommand({ modelId: "preheat.nothing", messages })))).slice(0, 2),
  };
}

const parts = { sqs, s3, dynamodb, lambda, bedrock };
const seen = {};
await Promise.all(process.argv.slice(2).map(async (name) => {
  seen[name] = await parts[name]().catch((error) => ({ error: String(error.stack) }));
}));
console.log(JSON.stringify(seen));
