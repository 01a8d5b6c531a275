-- A node is there. KEYS: the set of nodes. ARGV: its name, and how long one is taken to live after its last beat (ms).
-- Answers whether it was known, and who lives.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(value) return string.format('%.0f', value) end
local known = redis.call('ZSCORE', KEYS[1], ARGV[1]) and '1' or '0'
redis.call('ZADD', KEYS[1], text(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - 3600000))
redis.call('PEXPIRE', KEYS[1], 7200000)
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], text(now - tonumber(ARGV[2])), '+inf')
table.insert(answer, 1, known)
return answer
