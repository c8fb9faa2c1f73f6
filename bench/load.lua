-- wrk script: one request kind, many connections. Arguments: kind, queue url path, body bytes, count.
-- Kinds: send, batch, drain (receive 10 then delete them), raw (method, path, body from the environment).
local kind = os.getenv("LOAD_KIND")
local queue = os.getenv("LOAD_QUEUE") or ""
local size = tonumber(os.getenv("LOAD_SIZE") or "100")
local body = string.rep("x", size)
local auth = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/" .. (os.getenv("LOAD_SERVICE") or "sqs")
  .. "/aws4_request, SignedHeaders=host;x-amz-date, Signature=" .. string.rep("0", 64)

local function sqs(target, payload)
  return wrk.format("POST", "/", {
    ["Content-Type"] = "application/x-amz-json-1.0", ["X-Amz-Target"] = "AmazonSQS." .. target,
    ["Authorization"] = auth, ["X-Amz-Date"] = "20260101T000000Z", ["Host"] = wrk.host .. ":" .. wrk.port,
  }, payload)
end

local entries = {}
for i = 1, 10 do entries[i] = '{"Id":"' .. i .. '","MessageBody":"' .. body .. '"}' end
local requests = {}

function init(args)
  requests.send = sqs("SendMessage", '{"QueueUrl":"' .. queue .. '","MessageBody":"' .. body .. '"}')
  requests.batch = sqs("SendMessageBatch", '{"QueueUrl":"' .. queue .. '","Entries":[' .. table.concat(entries, ",") .. "]}")
  requests.receive = sqs("ReceiveMessage", '{"QueueUrl":"' .. queue .. '","MaxNumberOfMessages":10}')
  if kind == "raw" then
    requests.raw = wrk.format(os.getenv("LOAD_METHOD"), os.getenv("LOAD_PATH"), {
      ["Content-Type"] = os.getenv("LOAD_TYPE"), ["X-Amz-Target"] = os.getenv("LOAD_TARGET"),
      ["Authorization"] = auth, ["X-Amz-Date"] = "20260101T000000Z", ["Host"] = wrk.host .. ":" .. wrk.port,
      ["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD",
    }, os.getenv("LOAD_BODY"))
  end
end

-- Handles that were received and are to be deleted. Requests and responses interleave over the connections; what is
-- taken here is deleted once, whichever connection sends it.
local waiting = {}

function request()
  if kind ~= "drain" then return requests[kind] end
  local handles = table.remove(waiting)
  if handles == nil then return requests.receive end
  local rows = {}
  for i, handle in ipairs(handles) do rows[i] = '{"Id":"' .. i .. '","ReceiptHandle":"' .. handle .. '"}' end
  return sqs("DeleteMessageBatch", '{"QueueUrl":"' .. queue .. '","Entries":[' .. table.concat(rows, ",") .. "]}")
end

received = 0
empty = 0
bad = 0

function response(status, headers, content)
  if status >= 300 then bad = bad + 1 end
  if kind ~= "drain" then return end
  local handles = {}
  for handle in string.gmatch(content, '"ReceiptHandle"%s*:%s*"([^"]+)"') do handles[#handles + 1] = handle end
  if #handles > 0 then
    received = received + #handles
    waiting[#waiting + 1] = handles
  elseif not string.find(content, "Successful") then
    empty = empty + 1
    if empty > 64 then wrk.thread:stop() end
  end
end

local threads = {}
function setup(thread) threads[#threads + 1] = thread end

function done(summary, latency, requests_)
  local got, failed = 0, 0
  for _, thread in ipairs(threads) do
    got = got + (thread:get("received") or 0)
    failed = failed + (thread:get("bad") or 0)
  end
  io.write(string.format('RESULT {"requests": %d, "seconds": %.6f, "bad": %d, "errors": %d, "messages": %d, ' ..
    '"p50_ms": %.3f, "p99_ms": %.3f}\n', summary.requests, summary.duration / 1e6, failed,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout, got,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
