-- Gives back what was reserved or taken and never granted. KEYS: one. ARGV: the node, the number of what it gives (each larger than the one before), then of each
-- rate kind (w, b), unit (seconds), how many, and of a window the slot it was stamped in and 0, of a bucket when it was poured in (microseconds) and the rate's count.
-- Answers whether it was given. What is sent twice is given once, and what comes behind a later one not at all: that is only stricter.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local key, given_by = KEYS[1], 'g' .. ARGV[1]
-- A key that is gone must not come back, and with no end.
if redis.call('PTTL', key) < 0 then return 0 end
local held = redis.call('HGET', key, given_by)
if tonumber(string.match(held or '0', '^%d+')) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', key, given_by, ARGV[2] .. ' ' .. string.format('%.0f', now))
if not held then
  -- Each start of a node has a name of its own. What they gave minutes ago nobody sends again.
  local fields = redis.call('HGETALL', key)
  for place = 1, #fields, 2 do
    local at = string.sub(fields[place], 1, 1) == 'g' and string.match(fields[place + 1], ' (%d+)$')
    if at and tonumber(at) < now - 600000000 then redis.call('HDEL', key, fields[place]) end
  end
end
for argument = 3, #ARGV, 5 do
  local name, count = ARGV[argument + 1], tonumber(ARGV[argument + 2])
  if ARGV[argument] == 'w' then
    local field = name .. ':' .. ARGV[argument + 3]
    local held = tonumber(redis.call('HGET', key, field) or '0')
    local given = math.min(count, held)
    if given > 0 then
      if given == held then redis.call('HDEL', key, field) else redis.call('HINCRBY', key, field, -given) end
      redis.call('HINCRBY', key, name .. 's', -given)
    end
  else
    -- The bucket may have been empty meanwhile: then what ran out since would have run out of nothing.
    local passed = now - tonumber(ARGV[argument + 3])
    local given = count * tonumber(name) * 1000000 - passed * tonumber(ARGV[argument + 4])
    local level = tonumber(redis.call('HGET', key, name .. 'l') or '0')
    if passed >= 0 and given > 0 and level > 0 then
      redis.call('HSET', key, name .. 'l', string.format('%.0f', math.max(0, level - given)))
    end
  end
end
return 1
