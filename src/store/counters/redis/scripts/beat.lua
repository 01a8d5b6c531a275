-- A node is there. KEYS: the set of nodes. ARGV: its name, how long one is taken to live after its last beat (ms), and a name for the set, for where it has none.
-- Answers the name of the set, which is another one where Redis has forgotten it, and who lives.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function text(value) return string.format('%.0f', value) end
-- The one whose beat is never over.
local born = redis.call('ZRANGEBYSCORE', KEYS[1], '+inf', '+inf')[1]
if not born then
  born = ARGV[3]
  redis.call('ZADD', KEYS[1], '+inf', born)
end
redis.call('ZADD', KEYS[1], text(now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now - 3600000))
-- For longer than anything counts that nobody could ask for meanwhile: it has not been forgotten since it was not asked.
redis.call('PEXPIRE', KEYS[1], 90000000)
local answer = redis.call('ZRANGEBYSCORE', KEYS[1], text(now - tonumber(ARGV[2])), '(+inf')
table.insert(answer, 1, born)
return answer
