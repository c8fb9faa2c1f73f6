-- wrk script: one request kind over many connections. What to do comes in the environment:
--   LOAD_KIND      send, batch, drain (receive 10, then delete them), fifo, fifobatch (sends to a FIFO queue), raw
--   LOAD_PROTOCOL  json (default) or query, for send, batch and drain
--   LOAD_QUEUE     the queue's URL;  LOAD_SIZE  bytes of a message body (100)
--   LOAD_GROUPS    message groups that FIFO sends take in turn (1)
--   LOAD_WAIT      seconds that a receive of a drain waits (0);  LOAD_EMPTY  empty receives that end a drain (64)
--   LOAD_SERVICE   the signing name;  LOAD_METHOD, LOAD_PATH, LOAD_TYPE, LOAD_TARGET, LOAD_BODY  the raw request
-- The last line it prints is RESULT and a JSON object. `busy_seconds` is from the first answer to the last one that
-- brought messages: a drain ends when its queue is empty, and wrk itself sleeps on to the end of its time.
local ffi = require("ffi")
ffi.cdef [[
typedef struct { long seconds; long nanoseconds; } bench_timespec;
int clock_gettime(int clock, bench_timespec *at);
]]
local at = ffi.new("bench_timespec")
local function now()
  ffi.C.clock_gettime(1, at)
  return tonumber(at.seconds) + tonumber(at.nanoseconds) / 1e9
end

local kind = os.getenv("LOAD_KIND")
local query = os.getenv("LOAD_PROTOCOL") == "query"
local queue = os.getenv("LOAD_QUEUE") or ""
local size = tonumber(os.getenv("LOAD_SIZE") or "100")
local body = string.rep("x", size)
local groups = tonumber(os.getenv("LOAD_GROUPS") or "1")
local patience = tonumber(os.getenv("LOAD_EMPTY") or "64")
local auth = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/" .. (os.getenv("LOAD_SERVICE") or "sqs")
  .. "/aws4_request, SignedHeaders=host;x-amz-date, Signature=" .. string.rep("0", 64)

local function sqs(action, payload)
  local headers = {
    ["Authorization"] = auth, ["X-Amz-Date"] = "20260101T000000Z", ["Host"] = wrk.host .. ":" .. wrk.port,
  }
  if query then
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    local path = string.match(queue, "^%w+://[^/]+(/.*)$") or "/"
    return wrk.format("POST", path, headers, "Action=" .. action .. "&Version=2012-11-05" .. payload)
  end
  headers["Content-Type"] = "application/x-amz-json-1.0"
  headers["X-Amz-Target"] = "AmazonSQS." .. action
  return wrk.format("POST", "/", headers, '{"QueueUrl":"' .. queue .. '"' .. payload .. "}")
end

local function escape(text)
  return (string.gsub(text, "[^%w%-_.~]", function(char) return string.format("%%%02X", string.byte(char)) end))
end

local function delete(handles)
  local rows = {}
  for i, handle in ipairs(handles) do
    if query then
      local prefix = "&DeleteMessageBatchRequestEntry." .. i
      rows[i] = prefix .. ".Id=" .. i .. prefix .. ".ReceiptHandle=" .. escape(handle)
    else
      rows[i] = '{"Id":"' .. i .. '","ReceiptHandle":"' .. handle .. '"}'
    end
  end
  if query then return sqs("DeleteMessageBatch", table.concat(rows)) end
  return sqs("DeleteMessageBatch", ',"Entries":[' .. table.concat(rows, ",") .. "]")
end

local requests = {}

local function prepare()
  local rows = {}
  for i = 1, 10 do
    local prefix = "&SendMessageBatchRequestEntry." .. i
    rows[i] = query and (prefix .. ".Id=" .. i .. prefix .. ".MessageBody=" .. body)
      or ('{"Id":"' .. i .. '","MessageBody":"' .. body .. '"}')
  end
  if query then
    requests.send = sqs("SendMessage", "&MessageBody=" .. body)
    requests.batch = sqs("SendMessageBatch", table.concat(rows))
    requests.receive = sqs("ReceiveMessage", "&MaxNumberOfMessages=10")
  else
    requests.send = sqs("SendMessage", ',"MessageBody":"' .. body .. '"')
    requests.batch = sqs("SendMessageBatch", ',"Entries":[' .. table.concat(rows, ",") .. "]")
    local wait = os.getenv("LOAD_WAIT")
    requests.receive = sqs("ReceiveMessage", ',"MaxNumberOfMessages":10' .. (wait and ',"WaitTimeSeconds":' .. wait or ""))
  end
end

-- Messages of FIFO queues: each in the next group, with a deduplication id of its own.
local number = 0
local run = ""
local function ordered()
  number = number + 1
  return '"MessageBody":"' .. body .. '","MessageGroupId":"g' .. (number % groups) .. '","MessageDeduplicationId":"'
    .. run .. number .. '"'
end

local function ordered_batch()
  local rows = {}
  for i = 1, 10 do rows[i] = '{"Id":"' .. i .. '",' .. ordered() .. "}" end
  return sqs("SendMessageBatch", ',"Entries":[' .. table.concat(rows, ",") .. "]")
end

-- Handles that were received and are to be deleted. Requests and responses interleave over the connections; what is
-- taken here is deleted once, whichever connection sends it.
local waiting = {}
received = 0
first_at = 0
last_at = 0
local empty = 0

local function drained(status, headers, content)
  local handles = {}
  local pattern = query and "<ReceiptHandle>([^<]+)</ReceiptHandle>" or '"ReceiptHandle"%s*:%s*"([^"]+)"'
  for handle in string.gmatch(content, pattern) do handles[#handles + 1] = handle end
  if first_at == 0 then first_at = now() end
  if #handles > 0 then
    received = received + #handles
    last_at = now()
    waiting[#waiting + 1] = handles
  elseif not string.find(content, "Successful") and not string.find(content, "DeleteMessageBatchR") then
    empty = empty + 1
    if empty > patience then wrk.thread:stop() end
  else
    last_at = now()
  end
end

function init(args)
  if kind == "raw" then
    local headers = {
      ["Content-Type"] = os.getenv("LOAD_TYPE"), ["Authorization"] = auth, ["X-Amz-Date"] = "20260101T000000Z",
      ["Host"] = wrk.host .. ":" .. wrk.port, ["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD",
    }
    if (os.getenv("LOAD_TARGET") or "") ~= "" then headers["X-Amz-Target"] = os.getenv("LOAD_TARGET") end
    requests.raw = wrk.format(os.getenv("LOAD_METHOD"), os.getenv("LOAD_PATH"), headers, os.getenv("LOAD_BODY"))
  else
    prepare()
    run = string.format("%.6f-", now())
  end
  if kind == "drain" then
    response = drained
    request = function()
      local handles = table.remove(waiting)
      if handles == nil then return requests.receive end
      return delete(handles)
    end
  elseif kind == "fifo" then
    request = function() return sqs("SendMessage", "," .. ordered()) end
  elseif kind == "fifobatch" then
    request = ordered_batch
  else
    local one = requests[kind]
    request = function() return one end
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, requests_)
  local got, busy = 0, 0
  for _, thread in ipairs(threads) do
    got = got + (thread:get("received") or 0)
    busy = math.max(busy, (thread:get("last_at") or 0) - (thread:get("first_at") or 0))
  end
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "busy_seconds": %.6f, "bad": %d, "errors": %d, ' ..
    '"messages": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n', summary.requests, summary.duration / 1e6, busy, summary.errors.status,
    errors, got, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
